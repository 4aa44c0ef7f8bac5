from lbproxy.control.fleet_context import ProxyView
from lbproxy.settings import LogSettings, ProxySettings, RouteSettings, Settings


def test_the_view_of_the_proxy_has_its_name_routes_and_access_log() -> None:
    proxy = ProxySettings("edge", 2, "/run/lb.sock", None, (20000, 29999))
    routes = (RouteSettings("web"),)
    settings = Settings(None, proxy, (), routes, (), LogSettings(access="json", access_path="/tmp/access.log"))
    assert ProxyView.of(settings, ()) == ProxyView("edge", (), routes, "json", "/tmp/access.log")
