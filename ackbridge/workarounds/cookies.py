"""An HTTP client without cookies; see the package for when this can go."""

from __future__ import annotations

import httpx


class CookielessClient(httpx.AsyncClient):
    """Ignores cookies without parsing them, which costs as much as a small exchange."""

    @property
    def cookies(self) -> httpx.Cookies:
        return _NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:  # noqa: ARG002 -- the signature is httpx's
        raise AttributeError("this client keeps no cookies")


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        pass


_NO_COOKIES = _NoCookies()
