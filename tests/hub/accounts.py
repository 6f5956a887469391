"""Who asks, and what they may do: tokens with the rights that the Hub gives them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.hub.storage import RefusedError

USER = "me"
ORGANIZATION = "lab"  # that USER may write to

# Nothing but the prefix and the length is a real token's.
WRITE_TOKEN = "hf_" + "w" * 34
READ_TOKEN = "hf_" + "r" * 34
EXPIRED_TOKEN = "hf_" + "x" * 34
STRANGER_TOKEN = "hf_" + "s" * 34  # of another user, who may write to a namespace of their own


@dataclass
class Token:
    user: str
    role: str
    expired: bool = False


class Accounts:
    """The tokens that the server knows, and the namespaces of those who hold them."""

    def __init__(self) -> None:
        self.tokens = {
            WRITE_TOKEN: Token(USER, "write"),
            READ_TOKEN: Token(USER, "read"),
            EXPIRED_TOKEN: Token(USER, "write", expired=True),
            STRANGER_TOKEN: Token("stranger", "write"),
        }

    def expire(self, token: str) -> None:
        self.tokens[token].expired = True

    def who(self, authorization: str | None) -> Token | None:
        """The token of an `Authorization` header; `None` for a request without one."""
        if not authorization:
            return None
        token = self.tokens.get(authorization.removeprefix("Bearer "))
        if token is None:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        # On the real Hub's https addresses the client calls any 401 whose message isn't the one above a missing
        # repository (RepositoryNotFoundError); it doesn't on http, so that this is an HfHubHTTPError here. Only
        # the status tells an expired token apart in both.
        if token.expired:
            raise RefusedError(401, 'User Access Token "tests" is expired')
        return token

    def owns(self, token: Token | None, namespace: str) -> bool:
        return token is not None and (token.user == namespace or (token.user == USER and namespace == ORGANIZATION))

    def must_read(self, token: Token | None, namespace: str, private: bool | None) -> None:
        """Refuses who may not see a repository; `private` is `None` for one that doesn't exist."""
        if private is False or (private and self.owns(token, namespace)):
            return
        # The Hub doesn't tell who isn't logged in whether a repository exists.
        if token is None:
            raise RefusedError(401, "Invalid username or password.", "RepoNotFound")
        raise RefusedError(404, "Repository not found", "RepoNotFound")

    def must_write(self, token: Token | None, namespace: str, what: str = "upload to a repository") -> Token:
        if token is None:
            raise RefusedError(401, "Invalid username or password.")
        if token.role != "write":
            raise RefusedError(403, f"This token is read-only: you must use a write token to {what}.")
        if not self.owns(token, namespace):
            raise RefusedError(403, f'You don\'t have the rights to {what} under the namespace "{namespace}"')
        return token
