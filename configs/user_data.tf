# Terraform: machines that begin with lbproxy and an application. The part that belongs to lbproxy is `user_data`
# (cloud-init); the rest is an example for AWS.

variable "ami" {
  type        = string
  description = "Debian 12 or later"
}

variable "release_url" {
  type        = string
  description = "A .tar.gz with the application"
}

variable "subnets" {
  type = list(string)
}

locals {
  lb_toml = <<-EOT
    [proxy]
    control = "/run/lbproxy/lb.sock"

    [[listener]]
    address = ":80"

    [pool.web]
    command   = ".venv/bin/uvicorn app:app --port {port}"
    directory = "/srv/shop/current"
    size      = "auto"

    [pool.web.health]
    path = "/healthz"
  EOT

  user_data = <<-EOT
    #cloud-config
    package_update: true
    packages: [python3-venv, curl]
    users:
      - name: lbproxy
        system: true
        shell: /usr/sbin/nologin
    write_files:
      - path: /etc/lbproxy/lb.toml
        encoding: b64
        content: ${base64encode(local.lb_toml)}
      - path: /etc/systemd/system/lbproxy.service
        encoding: b64
        content: ${filebase64("${path.module}/lbproxy.service")}
    runcmd:
      - [python3, -m, venv, /opt/lbproxy]
      - [/opt/lbproxy/bin/pip, install, -q, lbproxy]
      - [mkdir, -p, /srv/shop/releases/first]
      - [sh, -c, "curl -fsS '${var.release_url}' | tar -xz -C /srv/shop/releases/first"]
      - [sh, -c, "cd /srv/shop/releases/first && python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt"]
      - [ln, -sfn, releases/first, /srv/shop/current]
      - [/opt/lbproxy/bin/lbproxy, check, -c, /etc/lbproxy/lb.toml]
      - [systemctl, enable, --now, lbproxy]
  EOT
}

resource "aws_launch_template" "shop" {
  name_prefix   = "shop-"
  image_id      = var.ami
  instance_type = "t3.small"
  user_data     = base64encode(local.user_data)

  metadata_options {
    http_tokens = "required"
  }
}

resource "aws_autoscaling_group" "shop" {
  name_prefix         = "shop-"
  min_size            = 2
  max_size            = 4
  health_check_type   = "ELB"
  vpc_zone_identifier = var.subnets

  launch_template {
    id      = aws_launch_template.shop.id
    version = aws_launch_template.shop.latest_version
  }

  # New machines come before old ones go: what a reload does inside a machine.
  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = 100
    }
  }
}
