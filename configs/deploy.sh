#!/bin/sh
# deploy.sh RELEASE      on the machine of lbproxy: serve $DEPLOY_ROOT/releases/RELEASE
#
# Points $DEPLOY_ROOT/current (default /srv/shop) to the release and reloads lbproxy, whose lb.toml says
#   [pool.web]
#   directory = "/srv/shop/current"                           resolved once for each generation
#   command   = ".venv/bin/uvicorn app:app --port {port}"     a release brings what it needs
# If the release does not come through, `current` points to the old one again: it always says what a restart would serve.
# Ends with the exit code of `lbproxy reload`. LBPROXY_CONFIG says which lbproxy (default /etc/lbproxy/lb.toml); its user
# needs no sudo: [proxy] control_group. Old releases stay: remove them when no generation needs them any more.
set -eu

export LBPROXY_CONFIG="${LBPROXY_CONFIG:-/etc/lbproxy/lb.toml}"
root=${DEPLOY_ROOT:-/srv/shop}
pause=${DEPLOY_RETRY_S:-5} # between two tries while another reload is running
tries=60
release=${1:-}

case $release in
"" | .* | */*)
    echo "usage: deploy.sh RELEASE, the name of a directory in $root/releases" >&2
    exit 2
    ;;
esac
if [ ! -d "$root/releases/$release" ]; then
    echo "deploy: there is no directory $root/releases/$release" >&2
    exit 2
fi

point_to() { # replaces the link in one step: there is no moment without one
    ln -s "$1" "$root/.current.$$"
    mv -T "$root/.current.$$" "$root/current"
}

before=$(readlink "$root/current" || true)
point_to "releases/$release"
while :; do
    code=0
    lbproxy reload --timeout 10m || code=$?
    [ "$code" = 8 ] && [ "$tries" -gt 0 ] || break
    tries=$((tries - 1))
    sleep "$pause"
done

case $code in
0) echo "deploy: $release serves" ;;
7) echo "deploy: $release is still being rolled out; lbproxy status says how far" >&2 ;;
9) echo "deploy: half-way: lbproxy resume, abort or rollback goes on" >&2 ;;
130) echo "deploy: interrupted; the reload goes on" >&2 ;;
*)
    [ -z "$before" ] || point_to "$before"
    case $code in
    5) why="rolled back, the old release serves as before" ;;
    6) why="rolled back, but with less capacity: look at lbproxy status now" ;;
    8) why="another reload is running" ;;
    78) why="lb.toml is not valid, nothing has happened" ;;
    3) why="lbproxy is not running" ;;
    *) why="lbproxy reload ended with $code" ;;
    esac
    echo "deploy: $release does not serve: $why" >&2
    ;;
esac
exit "$code"
