from lbproxy.model import Generation
from lbproxy.settings import PoolSettings


def resolve_generation(number: int, settings: PoolSettings) -> Generation:
    raise NotImplementedError
