"""The configurations of the proxies of a comparison and of the origin: a worker or two, the loopback only, access logs
off unless the scenario is about them.

Templates for `peers.Wiring.fill`. Every proxy may keep 4,096 connections to the origin for as long as nginx does by
default (lbproxy's own default is a second: real backends close idle connections soon), and 10,000 clients for
10 minutes.
The origin takes connections as they come: with nginx's usual one per turn of its loop, a proxy that opens many at once,
as at the beginning of a load, is said to have a 99th percentile of 250 to 800 ms, which is the origin's.
"""

ORIGIN_NGINX = """
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid $folder/origin.pid; error_log $folder/origin.log;
events { worker_connections 20000; multi_accept on; }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on; tcp_nodelay on;
    client_body_temp_path $folder/body; default_type application/octet-stream;
    server {
        listen 127.0.0.1:$port backlog=4096;
        location = / { default_type text/plain; return 200 "Hello world\\n"; }
        location = /post { default_type application/json; return 200 "{\\"stored\\": true}\\n"; }
        location /items/ {
            default_type text/html;
            add_header Set-Cookie "sid=$$request_id; Path=/; HttpOnly; SameSite=Lax";
            add_header Cache-Control "private, no-cache";
            add_header X-Content-Type-Options nosniff;
            add_header Vary Cookie;
            return 200 "$body";
        }
        location /files/ { alias $folder/files/; }
    }
}
"""

# What nghttpd serves as a unary call's answer: a message of 12 bytes, framed.
GRPC_FILE = "bench.Echo/Call.grpc"
GRPC_ANSWER = b"\0\0\0\0\x0cHello world\n"

NGINX_HTTP = """
daemon off; worker_processes $workers; worker_rlimit_nofile 20000; pid $folder/nginx.pid; error_log $folder/nginx.log;
events { worker_connections 20000; }
http {
    access_log $log; keepalive_requests 1000000000; keepalive_timeout 600s; tcp_nodelay on;
    client_body_temp_path $folder/body; proxy_temp_path $folder/proxy; proxy_max_temp_file_size 0;
    upstream backend { server 127.0.0.1:$origin; keepalive 4096; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:$port $tls;
        location / {
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Host $$host;
            proxy_set_header X-Forwarded-For $$proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $$scheme;
            $connection
        }
    }
}
"""

NGINX_TLS = """ssl backlog=4096;
        ssl_certificate $folder/cert.pem; ssl_certificate_key $folder/key.pem; ssl_protocols TLSv1.3"""

NGINX_H2 = NGINX_TLS.replace("ssl backlog", "ssl http2 backlog")

NGINX_GRPC = """
daemon off; worker_processes $workers; worker_rlimit_nofile 20000; pid $folder/nginx.pid; error_log $folder/nginx.log;
events { worker_connections 20000; }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; tcp_nodelay on;
    client_body_temp_path $folder/body; grpc_buffer_size 64k;
    upstream backend { server 127.0.0.1:$origin; keepalive 4096; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:$port http2 backlog=4096;
        location / {
            grpc_pass grpc://backend;
            grpc_set_header Host $$host;
            grpc_set_header X-Forwarded-For $$proxy_add_x_forwarded_for;
            grpc_set_header X-Forwarded-Proto $$scheme;
        }
    }
}
"""

NGINX_TCP = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; worker_processes $workers; worker_rlimit_nofile 20000; pid $folder/nginx.pid; error_log $folder/nginx.log;
events { worker_connections 20000; }
stream { server { listen 127.0.0.1:$port backlog=4096; proxy_pass 127.0.0.1:$origin; } }
"""

HAPROXY = """
global
    maxconn 9000
    nbthread $workers
defaults
    mode $mode
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout tunnel 600s
    $options
frontend in
    bind 127.0.0.1:$port backlog 4096
    default_backend out
backend out
    server origin 127.0.0.1:$origin
"""

CADDY = """
{
    admin off
    auto_https off
    servers {
        timeouts {
            idle 10m
        }
    }
}
:$port {
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:$origin {
        transport http {
            keepalive_idle_conns_per_host 4096
        }
    }
}
"""

TRAEFIK_OPTIONS = (
    "--global.checkNewVersion=false",
    "--global.sendAnonymousUsage=false",
    "--log.level=ERROR",
    "--entryPoints.in.address=127.0.0.1:$port",
    "--entryPoints.in.transport.respondingTimeouts.idleTimeout=600s",
    "--serversTransport.maxIdleConnsPerHost=4096",
)
TRAEFIK = """
http:
  routers: {all: {rule: "PathPrefix(`/`)", service: out, entryPoints: [in]}}
  services: {out: {loadBalancer: {servers: [{url: "http://127.0.0.1:$origin"}]}}}
"""

ENVOY = """
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: $port}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          use_remote_address: true
          common_http_protocol_options: {idle_timeout: 600s}
          upgrade_configs: [{upgrade_type: websocket}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: out, timeout: 60s}}]}
  clusters:
  - name: out
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {thresholds: [{max_connections: 4096, max_pending_requests: 10000, max_requests: 10000}]}
    load_assignment:
      cluster_name: out
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $origin}}}
"""

NODE = """
const http = require('http'), proxy = require('http-proxy');
const agent = new http.Agent({keepAlive: true, maxFreeSockets: 4096});
const web = proxy.createProxyServer({target: 'http://127.0.0.1:$origin', agent, xfwd: true});
const ws = proxy.createProxyServer({target: 'http://127.0.0.1:$origin', xfwd: true});
web.on('error', (error, request, response) => response.destroy());
ws.on('error', () => {});
const server = http.createServer((request, response) => web.web(request, response));
server.on('upgrade', (request, socket, head) => ws.ws(request, socket, head));
server.keepAliveTimeout = 600000;
server.listen($port, '127.0.0.1', 4096);
"""

LBPROXY_TLS = 'tls = { cert = "cert.pem", key = "key.pem", min_version = "1.3" }'

LBPROXY_H2 = LBPROXY_TLS + '\nprotocols = ["h2", "http/1.1"]'
LBPROXY_GRPC = 'protocols = ["h2c"]'
LBPROXY_GRPC_POOL = 'protocol = "h2c"'

LBPROXY = """
[proxy]
workers = $workers
control = "control"

[[listener]]
address = "127.0.0.1:$port"
mode = "$mode"
timeouts = { idle = "600s" }
$listens

[pool.web]
targets = ["127.0.0.1:$origin"]
$pool
timeouts = { keepalive = "60s" }

[log]
$log
"""
