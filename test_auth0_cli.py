#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tests of auth0_cli.py and, first, the practice tenant that they run against.

    python test_auth0_cli.py demo [--device]    a tour: log in, token, status, log out
    python test_auth0_cli.py tenant [--port N]  the practice tenant alone, until Ctrl-C
    python test_auth0_cli.py tenant --json      the same for the tests of other programs
    python test_auth0_cli.py live               compares a real tenant with it, point by point
    pytest                                      the tests

The practice tenant behaves on a loopback port as Auth0 is documented to behave on the Internet.
It needs nothing but Python, has two users, five applications and a clock that tests move, and
breaks on demand. Nothing in it is secret: its keys and passwords stand below.

Contents.
    Practice tenant: keys and JWTs; answers and pages; authorization endpoint; device authorization
        (RFC 8628); token endpoint; the other endpoints; control by other programs; HTTP; the
        tenant.
    Commands: tenant, demo and live.
    Helpers: imports, constants and functions; fixtures.
    Stories: Browser flow; Device flow; Client credentials; Password flow; Tokens of a session;
        Login and logout; Auth0; Settings; Command line; Prompts; Doctor; README.
    Properties: Many processes; Signals during a refresh; Locks; Session files; Stored sessions;
        Hostile text; Secrets; HTTP; Token requests; Loopback listener; ID token.
    The file itself: practice tenant; copies; speed; other platforms.
"""

import argparse
import base64
import contextlib
import copy
import email.utils
import functools
import hashlib
import hmac
import html
import json
import math
import os
import re
import secrets
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

# ---- Practice tenant: keys and JWTs --------------------------------------------------------------

SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")  # RFC 8017 section 9.2


def b64url(data):
    """Encode as in RFC 7515 section 2: URL-safe and without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """An RSA key of 2,048 bits with 16 primes (RFC 8017 section 3.2), for practice only.

    It is as good as any for who verifies, and signs ten times as fast as one with two primes.
    """

    def __init__(self, kid, *primes):
        self.kid, self.primes = kid, [int(prime, 16) for prime in primes]
        self.n, self.e = math.prod(self.primes), 65537
        self.d = pow(self.e, -1, math.prod(prime - 1 for prime in self.primes))
        self.parts = []  # of the Chinese remainder theorem
        for prime in self.primes:
            rest = self.n // prime
            self.parts.append((prime, self.d % (prime - 1), rest * pow(rest, -1, prime)))

    def jwk(self):
        """Return the public half as a member of a JWKS."""
        n, e = b64url(self.n.to_bytes(256, "big")), b64url(self.e.to_bytes(3, "big"))
        return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": n, "e": e}

    def sign(self, message):
        """Return the RS256 signature (RFC 8017, sections 8.2.1 and 5.1.2)."""
        digest = SHA256_PREFIX + hashlib.sha256(message).digest()
        return self.sign_block(b"\0\1" + b"\xff" * (253 - len(digest)) + b"\0" + digest)

    def sign_block(self, block):
        """Return the signature of a block that is padded already, or is a forgery."""
        number = int.from_bytes(block, "big")
        signature = sum(pow(number, d, prime) * factor for prime, d, factor in self.parts)
        return (signature % self.n).to_bytes(256, "big")


KEYS = [
    Key(
        "practice-1",
        "ffe529d6acfbe1df5a7db975ae49f2f5",
        "ff11a5b738d45fc81442a88a980dcae7",
        "fe804e245014b4a684df292bed2ac92d",
        "f38956595635c88e300851fa6477c985",
        "f43aa02fcdca867aaf86340990e1c497",
        "fd22290db2975146b1858e053ea3fff5",
        "f9fd8a20f0cbcdf62034c1531f821451",
        "f7a5349c6ae70b7ee855402fc90bc7f9",
        "fd0810076578bce93f10ac00eb9e6d75",
        "fc462b1b132de4d5749c582c813810d1",
        "f88fef621702e82a6e60d4d8823e7bd7",
        "f96356e6ff8e1ce37bb2e4a24a6d1f85",
        "fdcb7529ac46574decd052975cae2de7",
        "f5602fe9d15c87b234db031fdfc9e1e3",
        "fed4b38cd3df45413dfff36f1c3791eb",
        "fc6e18a5df1c529942058d8bc52dbb2d",
    ),
    Key(
        "practice-2",
        "ff5c0a6c2bfc2844df098dbbef5e6e83",
        "f0b2c1b3adc442182d0e6e8b392129c3",
        "f29034d6cb121f9a1d774d360895aad1",
        "f145467f7b5f279ba0112b338fc86329",
        "f2266ad74c5badcf9cc13f704c6c87a5",
        "f77cd817d29512aa9c7bd48567a00de7",
        "f51547a3396bd8f37c0b647d1ad5f2d1",
        "ff84b471396de8e72d7646f1c2eca6b9",
        "f38b8f24cde995a11b0fde86f0fcb411",
        "f1160ec56e36d83f03ecb6a228a738e9",
        "fa6540372a5d1cc89de0de28f3960a8b",
        "fd24bfcaa4dfdb95c71754bf34379c81",
        "f50926691c4359a1da6fa93674a2d07f",
        "f1a6ab99cd66165594447106002567bb",
        "f9bd7d85e96f546eb3154459c9a082d9",
        "f5a762c70eb0b474f8da7aeef45a7159",
    ),
    Key(
        "practice-3",
        "f3499289de6cf4a8eade5eae2b220ccd",
        "fa01f9836f1ddab1381aa1db5d9cac37",
        "f68c091f82e77d14b2a032a3dd15c4fd",
        "f1981bcf45d756bd9aa5ddc1cf3dd05d",
        "f9fd0bcc93a4d14057b16ef0f9bf6c5b",
        "f3504e63844ad2311ee63dd008c9fa3b",
        "f88b9745feee9c5c7222bee5ba5f237f",
        "fc98e72f080b596c5d8f5edfe2b5130f",
        "f0efc1b001d3612fad38d7534a47b433",
        "f9923680044a200dacecfe4e4a877d61",
        "fa68722b3d56cc42f9acdcbd7045c88f",
        "ffb2a59cc9181830cea46f046ec582e7",
        "fc2dd4b155e967e9fbc67d2216d462e9",
        "fb0498d9ad23896cf7bdfad5d3124d89",
        "fa1d2572543c11d3980ba090082196c9",
        "fab0e30a632a366c30e2c13ded92f045",
    ),
]


def overridden(claims, changes):
    """Return the claims with the changes; a change to None deletes."""
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


# ---- Practice tenant: answers and pages ----------------------------------------------------------

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
PASSWORD_REALM = "http://auth0.com/oauth/grant-type/password-realm"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
OIDC_SCOPES = ("openid", "profile", "email", "offline_access")
USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # Auth0's base20: no vowels, so no words

ROUTES = {}  # (method, path) -> function(tenant, request) -> Reply
GRANTS = {}  # grant_type -> (its short name, function(tenant, client, params) -> dict)

ERRORS = {  # our name -> status, error, error_description
    "missing": (400, "invalid_request", "Missing required parameter: {name}"),
    "malformed": (400, "invalid_request", "{problem}"),
    "organization": (400, "invalid_request", "parameter organization is invalid"),
    "grant_type": (400, "unsupported_grant_type", "Grant type not supported"),
    "client": (401, "access_denied", "Unauthorized"),
    "authenticated": (403, "unauthorized_client", "Unauthorized"),
    "assertion": (401, "invalid_client", "Client authentication failed"),
    "grant": (403, "unauthorized_client", "Grant type '{name}' not allowed for the client."),
    "no_audience": (
        403,
        "access_denied",
        "No audience parameter was provided, and no default audience has been configured",
    ),
    "audience": (403, "access_denied", "Service not enabled within domain: {audience}"),
    "client_grant": (
        403,
        "access_denied",
        (
            'Client is not authorized to access "{audience}". You might probably want to create'
            ' a "client-grant" associated to this API.'
        ),
    ),
    "code": (403, "invalid_grant", "Invalid authorization code"),
    "code_verifier": (403, "invalid_grant", "Failed to verify code verifier"),
    "redirect_uri": (
        403,
        "unauthorized_client",
        "The redirect URI is wrong. You sent {sent}, and we expected {expected}",
    ),
    "refresh_token": (403, "invalid_grant", "Unknown or invalid refresh token."),
    "password": (403, "invalid_grant", "Wrong email or password."),
    "blocked": (403, "unauthorized", "user is blocked"),
    "mfa": (403, "mfa_required", "Multifactor authentication required"),
    "device_code": (403, "invalid_grant", "Invalid or expired device code."),
    "expired": (403, "expired_token", "This device code has expired."),
    "pending": (403, "authorization_pending", "User has yet to authorize device code."),
    "denied": (403, "access_denied", "User cancelled the confirmation prompt."),
    "slow_down": (
        429,
        "slow_down",
        "You are polling faster than the specified interval of {interval} seconds.",
    ),
    # The last ones only ever go to the callback.
    "declined": (302, "access_denied", "User did not authorize the request"),
    "response_type": (302, "unsupported_response_type", "Unsupported response type: {name}"),
    "challenge": (302, "invalid_request", "Parameter 'code_challenge' (S256) is required"),
    "silent": (302, "login_required", "Login required"),
}
CALLBACK_MISMATCH = (
    "Callback URL mismatch. The provided redirect_uri is not in the list of allowed callback URLs."
)

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ max-width: 24rem; margin: 12vh auto; padding: 0 1rem }}
label, form {{ display: block; margin: 1rem 0 }}
input, select, button {{ font: inherit; padding: .4rem .8rem }}
strong {{ font: 1.5rem ui-monospace, monospace }}
footer {{ margin-top: 3rem; font-size: .8rem; opacity: .7 }}
</style></head>
<body><h1>{title}</h1>{content}
<footer>Practice tenant on this machine: not Auth0, no real account.</footer></body></html>
"""
USER_FORM = """<form method="post" action="{action}">
<input type="hidden" name="{name}" value="{value}">
<label>User <select name="user">{options}</select></label>
<button name="action" value="accept">{accept}</button>
<button name="action" value="decline">{decline}</button></form>"""
DEVICE_PAGE = """<p>Is this the code displayed on your device?</p><strong>{user_code}</strong>
<p>{client_id} will be able to act for you.</p>{form}"""
CODE_FORM = """<p>Enter the code displayed on your device.</p>
<form method="post" action="/activate">
<input name="user_code" autofocus autocomplete="off" aria-label="Code">
<button>Continue</button></form>"""


class Reply:
    """One HTTP answer; a dict as body is sent as JSON, a text as a page or as plain text."""

    def __init__(self, status, body="", headers=None):
        self.status, self.body, self.headers = status, body, headers or {}

    def encode(self, date):
        """Return head and body as they go over the wire; a header that is None is left out."""
        body, kind = self.body, "application/json"
        if isinstance(body, str):
            kind = ("text/html" if body.startswith("<") else "text/plain") + "; charset=utf-8"
            body = body.encode()
        elif not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {
            "Date": email.utils.formatdate(date, usegmt=True),
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
        }
        reason = BaseHTTPRequestHandler.responses.get(self.status, ("",))[0]
        lines = [f"HTTP/1.1 {self.status} {reason}"]
        lines += [f"{name}: {value}" for name, value in overridden(headers, self.headers).items()]
        return "\r\n".join([*lines, "", ""]).encode(), body


class RefusalError(Exception):
    """Ends the handling of a request with this reply."""

    def __init__(self, reply):
        super().__init__(reply.status)
        self.reply = reply


def oauth_error(name, more=None, /, **values):
    """Return the exception that answers with a row of ERRORS; `more` are further members."""
    status, error, text = ERRORS[name]
    body = {"error": error, "error_description": text.format(**values)}
    return RefusalError(Reply(status, {**body, **(more or {})}))


def error_page(status, message):
    """Return the exception that tells the user, not the client."""
    return RefusalError(Reply(status, page("Oops!, something went wrong", paragraph(message))))


def page(title, content):
    """Fill the page; `content` is markup."""
    return PAGE.format(title=html.escape(title), content=content)


def paragraph(text):
    """Return the text as markup."""
    return f"<p>{html.escape(text)}</p>"


def user_form(tenant, login_hint=None, **parts):
    """Return the form that lets the reader choose who to be and what to answer."""
    options = ""
    for key, user in tenant.users.items():
        selected = " selected" if login_hint in (key, user.email) else ""
        options += f'<option value="{html.escape(key)}"{selected}>{html.escape(user.name)}</option>'
    return USER_FORM.format(options=options, **parts)


def route(method, *paths):
    """Register the function as the endpoint at these paths."""

    def register(function):
        ROUTES.update({(method, path): function for path in paths})
        return function

    return register


def grant(grant_type, name=None):
    """Register the function as the token endpoint's answer to this grant type."""

    def register(function):
        GRANTS[grant_type] = (name or grant_type, function)
        return function

    return register


def required(params, name):
    """Return the parameter, or refuse the request as the token endpoint does."""
    if not params.get(name):
        raise oauth_error("missing", name=name)
    return params[name]


# ---- Practice tenant: authorization endpoint -----------------------------------------------------


@route("GET", "/authorize")
def serve_authorize(tenant, request):
    """Show the login page, an error page, or send an error back to the client."""
    params = request.params
    client = tenant.clients.get(params.get("client_id"))
    if client is None:
        raise error_page(403, f"Unknown client: {params.get('client_id')}")
    # RFC 6749 section 4.1.2.1: never a redirect to an address that nobody registered.
    if not tenant.allows_callback(client, params.get("redirect_uri", "")):
        raise error_page(403, CALLBACK_MISMATCH)
    error = authorize_error(tenant, client, params)
    if error:
        return redirect_error(tenant, params, error)
    state = secrets.token_urlsafe(16)
    tenant.logins[state] = params
    target = {"action": "/u/login", "name": "state", "value": state}
    labels = {"accept": "Log in", "decline": "Decline"}
    form = user_form(tenant, params.get("login_hint"), **target, **labels)
    return Reply(200, page("Log in", paragraph(f"{client.client_id} asks who you are.") + form))


def authorize_error(tenant, client, params):
    """Return the exception for what Auth0 reports to the callback, or None."""
    challenge = params.get("code_challenge", "")
    is_s256 = params.get("code_challenge_method") == "S256" and len(challenge) == 43
    response_type, audience = params.get("response_type"), params.get("audience")
    organization = params.get("organization")
    if "authorization_code" not in client.grants:
        return oauth_error("grant", name="authorization_code")
    if response_type != "code":
        return oauth_error("response_type", name=response_type)
    if not is_s256:
        return oauth_error("challenge")
    if organization and tenant.org_id(organization) is None:
        return oauth_error("organization")
    if audience and audience not in tenant.apis:
        return oauth_error("audience", audience=audience)
    # Auth0 rejects silent authentication for loopback callbacks; besides, there is no session.
    return oauth_error("silent") if params.get("prompt") == "none" else None


@route("POST", "/u/login")
def serve_login(tenant, request):
    """Take the user's answer back to the callback."""
    params = tenant.logins.pop(request.params.get("state"), None)
    user = tenant.users.get(request.params.get("user"))
    if params is None or user is None:
        raise error_page(400, "This login is over. Go back to your program and start again.")
    if request.params.get("action") != "accept":
        return redirect_error(tenant, params, oauth_error("declined"))
    if user.blocked:
        return redirect_error(tenant, params, oauth_error("blocked"))
    code = tenant.new_secret("code")
    tenant.codes[code] = SimpleNamespace(
        session=new_session(tenant, tenant.clients[params["client_id"]], user, params),
        redirect_uri=params["redirect_uri"],
        code_challenge=params["code_challenge"],
        nonce=params.get("nonce"),
        expires_at=tenant.now() + tenant.code_ttl,
    )
    return redirect_back(tenant, params, {"code": code})


def redirect_error(tenant, params, error):
    """Tell the callback what an OAuth endpoint would answer."""
    return redirect_back(tenant, params, error.reply.body)


def redirect_back(tenant, params, answer):
    """Send the browser to the callback of the authorization request `params`."""
    iss = tenant.issuer if tenant.authorization_response_iss else None
    answer = overridden(answer, {"state": params.get("state"), "iss": iss})
    redirect_uri = params["redirect_uri"]
    mark = "&" if "?" in redirect_uri else "?"
    return Reply(302, headers={"Location": redirect_uri + mark + urlencode(answer)})


# ---- Practice tenant: device authorization (RFC 8628) --------------------------------------------


@route("POST", "/oauth/device/code")
def serve_device_code(tenant, request):
    """Issue a device code and a user code; like Auth0, refuse every client authentication."""
    params = request.params
    client = tenant.clients.get(required(params, "client_id"))
    if client is None:
        raise oauth_error("client")
    if {"client_secret", "client_assertion"} & set(params) or "Authorization" in request.headers:
        raise oauth_error("authenticated")
    if "device_code" not in client.grants:
        raise oauth_error("grant", name=DEVICE_CODE)
    check_audience(tenant, params.get("audience"))
    device_code = tenant.new_secret("device")
    letters = "".join(secrets.choice(USER_CODE_LETTERS) for _ in range(8))
    user_code = f"{letters[:4]}-{letters[4:]}"
    device = SimpleNamespace(client=client, params=params, user_code=user_code)
    device.user = device.decision = None
    device.polled_at, device.was_told = tenant.now(), False
    device.expires_at = tenant.now() + tenant.device_ttl
    tenant.devices[device_code] = device
    verification_uri = tenant.issuer + "activate"
    answer = {
        "device_code": device_code,
        "user_code": user_code,
        "verification_uri": verification_uri,
        "verification_uri_complete": f"{verification_uri}?user_code={user_code}",
        "expires_in": tenant.device_ttl,
        "interval": tenant.device_interval,
    }
    return Reply(200, answer)


@route("GET", "/activate")
@route("POST", "/activate")
def serve_activate(tenant, request):
    """Ask for the user code, have it compared with the device, take the decision."""
    user_code, action = request.params.get("user_code"), request.params.get("action")
    if user_code is None:
        return Reply(200, page("Device Activation", CODE_FORM))
    device = tenant.find_device(user_code)
    if device is None or device.decision or tenant.now() >= device.expires_at:
        raise error_page(400, "The code you entered was not found or has expired.")
    if request.method == "GET" or action is None:
        return Reply(200, page("Device Confirmation", device_page(tenant, device)))
    device.user = tenant.users.get(request.params.get("user"))
    has_agreed = action == "accept" and device.user is not None and not device.user.blocked
    device.decision = "approved" if has_agreed else "denied"
    if not has_agreed:
        return Reply(200, page("Not connected", "<p>Your device was refused.</p>"))
    return Reply(200, page("Congratulations, you're all set!", "<p>Your device is connected.</p>"))


def device_page(tenant, device):
    """Return what RFC 8628 section 3.3.1 wants to be seen before a decision."""
    target = {"action": "/activate", "name": "user_code", "value": device.user_code}
    form = user_form(tenant, **target, accept="Confirm", decline="Cancel")
    names = {"user_code": device.user_code, "client_id": device.client.client_id}
    return DEVICE_PAGE.format(form=form, **names)


@grant(DEVICE_CODE, "device_code")
def grant_device_code(tenant, client, params):
    """Answer one poll; `expired_token` is said exactly once."""
    device_code = required(params, "device_code")
    device = tenant.devices.get(device_code)
    if device is None or device.client is not client or device.was_told:
        raise oauth_error("device_code")
    waited, device.polled_at = tenant.now() - device.polled_at, tenant.now()
    if tenant.now() >= device.expires_at:
        device.was_told = True
        raise oauth_error("expired")
    if device.decision is None:
        if tenant.enforce_interval and waited < tenant.device_interval:
            raise oauth_error("slow_down", interval=tenant.device_interval)
        raise oauth_error("pending")
    if device.decision == "denied":
        raise oauth_error("denied")
    del tenant.devices[device_code]
    return first_tokens(tenant, new_session(tenant, client, device.user, device.params))


# ---- Practice tenant: token endpoint -------------------------------------------------------------


@route("POST", "/oauth/token")
def serve_token(tenant, request):
    """Answer every grant type."""
    params = request.params
    grant_type = required(params, "grant_type")
    if grant_type not in GRANTS:
        raise oauth_error("grant_type")
    client = authenticate_client(tenant, params)
    name, function = GRANTS[grant_type]
    if name not in client.grants:
        raise oauth_error("grant", name=grant_type)
    return Reply(200, function(tenant, client, params))


def authenticate_client(tenant, params):
    """Return the client; a secret or an assertion counts only in the body."""
    assertion = params.get("client_assertion", "")
    client = tenant.clients.get(params.get("client_id") or issuer_of(assertion))
    if client is not None and client.assertion:
        is_jwt = assertion.count(".") == 2 and params.get("client_assertion_type") == JWT_BEARER
        if not is_jwt or assertion in tenant.assertions:
            raise oauth_error("assertion")
        tenant.assertions.append(assertion)
    elif client is None or client.client_secret not in (None, params.get("client_secret")):
        raise oauth_error("client")
    return client


def issuer_of(assertion):
    """Return the `iss` of a client assertion: the client, where `client_id` is not sent."""
    try:
        payload = assertion.split(".")[1]
        return json.loads(base64.urlsafe_b64decode(payload + "=="))["iss"]
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def check_audience(tenant, audience):
    """Refuse an API that the tenant does not have."""
    if audience and audience not in tenant.apis:
        raise oauth_error("audience", audience=audience)


def new_session(tenant, client, user, params):
    """Record what the user granted; scopes that nobody knows are silently dropped."""
    audience = params.get("audience") or None
    known = [*OIDC_SCOPES, *tenant.apis.get(audience, [])]
    if "refresh_token" not in client.grants:
        known.remove("offline_access")
    requested = params.get("scope", "openid").split()
    session = SimpleNamespace(client=client, user=user, sub=user.sub, audience=audience)
    session.scopes = [scope for scope in known if scope in requested]
    session.is_alive = True
    org_id = tenant.org_id(params.get("organization"))
    session.claims = {
        "org_id": org_id,
        "org_name": tenant.orgs.get(org_id) if tenant.org_names else None,
        "auth_time": int(tenant.now()) if "max_age" in params else None,
    }
    tenant.sessions.append(session)
    return session


def first_tokens(tenant, session, nonce=None):
    """Answer the grant that made the session."""
    reply = issue_tokens(tenant, session, session.audience, session.scopes, nonce)
    if "offline_access" in session.scopes:
        reply["refresh_token"] = tenant.new_refresh_token(session)
    return reply


def issue_tokens(tenant, session, audience, scopes, nonce=None):
    """Return a token response without refresh token; an API's scope needs the permission (RBAC)."""
    if session.user:
        permitted = {*OIDC_SCOPES, *session.user.permissions}
        scopes = [scope for scope in scopes if scope in permitted]
    claims = {"iss": tenant.issuer, "sub": session.sub, "iat": int(tenant.now())}
    reply = {
        "access_token": access_token(tenant, session, claims, audience, scopes),
        "scope": " ".join(scopes),
        "expires_in": tenant.access_ttl,
        "token_type": "Bearer",
    }
    if "openid" in scopes:
        reply["id_token"] = id_token(tenant, session, {**claims, "nonce": nonce}, scopes)
    expires_at = tenant.now() + tenant.access_ttl
    tenant.access_tokens[reply["access_token"]] = (session, scopes, expires_at)
    tenant.secrets.update(reply[name] for name in ("access_token", "id_token") if name in reply)
    return reply


def access_token(tenant, session, claims, audience, scopes):
    """Return a JWT for an API, and something opaque without an audience."""
    if not audience:
        return tenant.new_secret("access")
    more = {
        "aud": [audience, tenant.issuer + "userinfo"] if "openid" in scopes else audience,
        "exp": claims["iat"] + tenant.access_ttl,
        "jti": secrets.token_urlsafe(12),
        "azp": session.client.client_id,
        "scope": " ".join(scopes),
        "org_id": session.claims["org_id"],
    }
    return tenant.sign(overridden(claims, more))


def id_token(tenant, session, claims, scopes):
    """Return the ID token; `tenant.id_claims` has the last word."""
    more = {
        "aud": session.client.client_id,
        "exp": claims["iat"] + tenant.id_ttl,
        "sid": secrets.token_urlsafe(12),
    }
    claims = {**claims, **user_claims(session.user, scopes), **more}
    claims = overridden(claims, session.claims)
    changes = tenant.id_claims or {}
    return tenant.sign(overridden(claims, changes(claims) if callable(changes) else changes))


def user_claims(user, scopes):
    """Return what the scopes let a client know about the user."""
    claims = {"sub": user.sub}
    if "profile" in scopes:
        claims.update(name=user.name, nickname=user.name.split()[0].lower())
    if "email" in scopes:
        claims.update(email=user.email, email_verified=True)
    return claims


@grant("authorization_code")
def grant_authorization_code(tenant, client, params):
    """Exchange a code, once and by the program that asked for it."""
    record = tenant.codes.pop(required(params, "code"), None)
    code_verifier = required(params, "code_verifier")
    expired = record is None or tenant.now() >= record.expires_at
    if expired or record.session.client is not client:
        raise oauth_error("code")
    digest = hashlib.sha256(code_verifier.encode()).digest()
    if not hmac.compare_digest(b64url(digest), record.code_challenge):
        raise oauth_error("code_verifier")
    sent, expected = params.get("redirect_uri"), record.redirect_uri
    if sent != expected:
        raise oauth_error("redirect_uri", sent=sent, expected=expected)
    return first_tokens(tenant, record.session, record.nonce)


@grant("client_credentials")
def grant_client_credentials(tenant, client, params):
    """Give a machine all the scopes of its grant; a requested scope does not narrow them."""
    audience = params.get("audience")
    if not audience:
        raise oauth_error("no_audience")
    check_audience(tenant, audience)
    if audience not in client.client_grants:
        raise oauth_error("client_grant", audience=audience)
    org_id = tenant.org_id(params.get("organization"))
    if params.get("organization") and org_id is None:
        raise oauth_error("organization")
    machine = SimpleNamespace(client=client, user=None, sub=f"{client.client_id}@clients")
    machine.claims = {"org_id": org_id}
    return issue_tokens(tenant, machine, audience, tenant.apis[audience])


@grant("refresh_token")
def grant_refresh_token(tenant, client, params):
    """Refresh; a rotated token that comes again ends the whole session."""
    refresh_token = required(params, "refresh_token")
    record = tenant.refresh_tokens.get(refresh_token)
    session = record.session if record else None
    if session is None or not session.is_alive or session.client is not client:
        raise oauth_error("refresh_token")
    if record.rotated_at is not None:
        is_late = tenant.now() >= record.rotated_at + tenant.leeway
        if is_late or record.is_superseded:
            session.is_alive = False
            raise oauth_error("refresh_token")
    if session.user.blocked:
        raise oauth_error("blocked")
    audience, allowed = session.audience, session.scopes
    if params.get("audience") in tenant.mrrt:
        audience = params["audience"]
        allowed = [scope for scope in allowed if scope in OIDC_SCOPES] + tenant.mrrt[audience]
    requested = params.get("scope", "").split() or allowed
    # Scopes beyond the grant are dropped without an error, as Auth0 documents it for MRRT.
    scopes = [scope for scope in allowed if scope in requested]
    reply = issue_tokens(tenant, session, audience, scopes)
    if tenant.rotation:
        record.rotated_at = record.rotated_at or tenant.now()
        if record.parent:
            # The overlap covers only the immediately previous token.
            record.parent.is_superseded = True
        reply["refresh_token"] = tenant.new_refresh_token(session, parent=record)
    return reply


@grant("password")
@grant(PASSWORD_REALM, "password-realm")
def grant_password(tenant, client, params):
    """Take the user's password; without a scope, all scopes of the API are granted."""
    username, password = required(params, "username"), required(params, "password")
    in_realm = True
    if params["grant_type"] == PASSWORD_REALM:
        in_realm = required(params, "realm") in tenant.realms
    check_audience(tenant, params.get("audience"))
    found = [user for name, user in tenant.users.items() if username in (name, user.email)]
    if not in_realm or not found or found[0].password != password:
        raise oauth_error("password")
    user = found[0]
    if user.blocked:
        raise oauth_error("blocked")
    if user.mfa:
        raise oauth_error("mfa", {"mfa_token": tenant.new_secret("mfa")})
    every = " ".join(["openid", "profile", "email", *tenant.apis.get(params.get("audience"), [])])
    return first_tokens(tenant, new_session(tenant, client, user, {"scope": every, **params}))


# ---- Practice tenant: the other endpoints --------------------------------------------------------


@route("POST", "/oauth/revoke")
def serve_revoke(tenant, request):
    """Revoke a refresh token with its family; unknown ones are fine too (RFC 7009)."""
    client = authenticate_client(tenant, request.params)
    record = tenant.refresh_tokens.get(required(request.params, "token"))
    if record and record.session.client is client:
        record.session.is_alive = False
    return Reply(200, "OK")


@route("GET", "/userinfo")
def serve_userinfo(tenant, request):
    """Say who the access token speaks for."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    session, scopes, expires_at = tenant.access_tokens.get(token, (None, (), 0))
    if scheme.lower() != "bearer" or "openid" not in scopes or tenant.now() >= expires_at:
        return Reply(401, "Unauthorized", {"WWW-Authenticate": 'Bearer error="invalid_token"'})
    return Reply(200, user_claims(session.user, scopes))


@route("GET", "/v2/logout")
def serve_logout(tenant, request):
    """End the browser session, of which there is none here."""
    return Reply(200, "OK")


@route("GET", "/.well-known/jwks.json")
def serve_jwks(tenant, request):
    """Show the current and the next key, as Auth0 always does."""
    keys = [tenant.key(0).jwk(), tenant.key(1).jwk()]
    return Reply(200, {"keys": keys}, {"Cache-Control": "public, max-age=15"})


@route("GET", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")
def serve_discovery(tenant, request):
    """Describe the tenant (OpenID Connect Discovery)."""
    paths = {
        "authorization_endpoint": "authorize",
        "token_endpoint": "oauth/token",
        "device_authorization_endpoint": "oauth/device/code",
        "userinfo_endpoint": "userinfo",
        "revocation_endpoint": "oauth/revoke",
        "jwks_uri": ".well-known/jwks.json",
    }
    answer = {
        "issuer": tenant.issuer,
        **{name: tenant.issuer + path for name, path in paths.items()},
        "scopes_supported": list(OIDC_SCOPES),
        "response_types_supported": ["code"],
        "grant_types_supported": list(GRANTS),
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "subject_types_supported": ["public"],
        "authorization_response_iss_parameter_supported": tenant.authorization_response_iss,
    }
    return Reply(200, answer)


# ---- Practice tenant: control by other programs --------------------------------------------------

CONTROLS = {}  # path -> (method, members of its JSON body, function(tenant, **members) -> JSON)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def control(method, name, **members):
    """Register the function as a control endpoint; `members` gives defaults, or required types."""

    def register(function):
        CONTROLS["/practice/" + name] = (method, members, function)
        return function

    return register


def control_error(status, problem, headers=None):
    """Return the exception that tells a test what is wrong with its request."""
    return RefusalError(Reply(status, {"error": problem}, headers))


def serve_control(tenant, request, body):
    """Do what a test in another process asks for; no page of a browser can ask for it."""
    host = re.sub(r":\d+$", "", request.headers.get("Host", "")).strip("[]").lower()
    if host not in LOOPBACK or "Origin" in request.headers:
        raise control_error(403, "control is for programs on this machine, not for web pages")
    if request.path not in CONTROLS:
        raise control_error(404, f"there is no {request.path}")
    method, members, function = CONTROLS[request.path]
    if request.method != method:
        raise control_error(405, f"{request.path} wants {method}", {"Allow": method})
    arguments = control_arguments(members, body)
    if arguments.get("user", "alice") not in tenant.users:
        raise control_error(400, f"there is no user {arguments['user']!r}")
    try:
        result = function(tenant, **arguments)
    except LookupError as error:
        raise control_error(400, str(error)) from None
    return Reply(200, {} if result is None else result)


def control_arguments(members, body):
    """Return the members of the JSON body, with the defaults of those that are left out."""
    try:
        sent = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise control_error(400, "the body is not JSON") from None
    if not isinstance(sent, dict):
        raise control_error(400, "the body is no JSON object")
    for name in sent.keys() - members.keys():
        raise control_error(400, f"there is no member {name!r}; there are: {', '.join(members)}")
    for name, default in members.items():
        kind = default if isinstance(default, type) else type(default)
        if type(sent.setdefault(name, default)) is not kind:
            raise control_error(400, f"{name} has to be of the type {kind.__name__}")
    return sent


@control("POST", "approve", user_code=str, user="alice")
def control_approve(tenant, user_code, user):
    """Confirm the user code as this user."""
    tenant.approve(user_code, user)


@control("POST", "deny", user_code=str, user="alice")
def control_deny(tenant, user_code, user):
    """Cancel at the page that shows the user code."""
    tenant.deny(user_code)


@control("POST", "login", url=str, user="alice")
def control_login(tenant, url, user):
    """Play the browser: open the authorization URL, consent, follow the redirects to the end."""
    if not url.startswith(tenant.issuer):
        raise control_error(400, f"url does not start with {tenant.issuer}")
    try:
        return {"status": tenant.login_as(url, user).status}
    except (OSError, ValueError, HTTPException) as error:
        raise control_error(400, f"the browser saw no page: {error}") from None


@control("POST", "expire")
def control_expire(tenant):
    """Let all access tokens expire."""
    tenant.expire_access_tokens()


@control("POST", "revoke", user="alice")
def control_revoke(tenant, user):
    """End all refresh tokens of the user."""
    tenant.revoke_sessions(user)


@control("POST", "rotate-keys")
def control_rotate_keys(tenant):
    """Sign with the next key from now on."""
    tenant.rotate_keys()


@control("POST", "fail", path=str, status=503, n=1, retry_after=0)
def control_fail(tenant, path, status, n, retry_after):
    """Answer the next n requests to the path with the status, and with Retry-After if not 0."""
    if not (400 <= status <= 599 and 1 <= n <= 10000 and retry_after >= 0):
        raise control_error(400, "status has to be 400 to 599, n 1 to 10000, retry_after 0 or more")
    reason = BaseHTTPRequestHandler.responses.get(status, ("unknown",))[0]
    fault = {"status": status, "body": {"error": reason.lower().replace(" ", "_")}}
    if retry_after:
        fault["headers"] = {"Retry-After": str(retry_after)}
    for _ in range(n):
        tenant.break_next(path, **fault)


@control("GET", "requests")
def control_requests(tenant):
    """List what the tenant was asked, without the values of secrets."""

    def shown(params):
        return {name: "***" if SECRET_PARAM.fullmatch(name) else params[name] for name in params}

    return [
        {
            "method": request.method,
            "path": request.path,
            "parameters": shown(request.params),
            "status": request.status,
        }
        for request in list(tenant.requests)
    ]


# ---- Practice tenant: HTTP -----------------------------------------------------------------------


def reset_at_close(connection):
    """Let no closed connection wait for late packets: the program looks through all there are."""
    now = b"\1\0\0\0\0\0\0\0" if os.name == "posix" else b"\1\0\0\0"
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)


class Waking:
    """Lets a server wait for connections without a look at the clock; one more ends the wait."""

    is_over = False

    def serve(self):
        """Accept connections in a thread."""
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        """Accept connections until the end."""
        while not self.is_over:
            self.handle_request()

    def verify_request(self, request, client_address):
        """Leave out the connection that ends the wait."""
        return not self.is_over

    def stop(self):
        """Accept no more of them."""
        self.is_over = True
        with contextlib.suppress(OSError):
            socket.create_connection(self.server_address, timeout=5).close()
        self.thread.join(5)
        self.server_close()


class Server(Waking, ThreadingHTTPServer):
    """Serves one tenant; knows its connections, so that closing it leaves none open."""

    daemon_threads = True
    request_queue_size = 128
    # On Windows the option would let two servers share a port.
    allow_reuse_address = os.name != "nt"

    def __init__(self, tenant, port):
        self.tenant, self.connections = tenant, set()
        super().__init__(("127.0.0.1", port), Handler)

    def server_bind(self):
        """Bind without looking up our own name, which can take seconds without a resolver."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address

    def process_request(self, request, client_address):
        """Note the connection."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        """Forget the connection, and leave no trace of it in the system's tables if possible."""
        self.connections.discard(request)
        with contextlib.suppress(OSError):
            request.settimeout(0.5)
            if not request.recv(1):  # the client has closed it, and has the whole answer
                reset_at_close(request)
                return self.close_request(request)
        return super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """Report a bug of the tenant, not a client that went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def close(self):
        """Stop, and end the connections that clients keep open."""
        self.stop()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """Reads a request, hands it to the tenant, writes its answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120  # seconds that a connection may stay idle

    def do_GET(self):
        """Serve any request."""
        tenant, url = self.server.tenant, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        text = body.decode("utf-8", "replace") if self.command == "POST" else url.query
        pairs = parse_qsl(text, keep_blank_values=True)
        request = SimpleNamespace(method=self.command, path=url.path, params=dict(pairs))
        request.headers, request.time = self.headers, time.monotonic()
        if url.path.startswith("/practice/"):  # neither logged nor broken by a fault
            try:
                reply = serve_control(tenant, request, body)
            except RefusalError as refusal:
                reply = refusal.reply
            self.transmit(reply.encode(tenant.now()))
            return
        request.status = request.error = None  # until the answer is known
        fault, reply = tenant.answer(request, problem_of(request, url.query, pairs))
        self.transmit(reply.encode(tenant.now()), **fault)

    do_POST = do_GET  # noqa: N815

    def transmit(self, parts, close=None, drip=None, headers=None, **_):
        """Send the answer, as badly as the fault wants it."""
        head, body = parts
        data = head + body
        if close:
            data = head + body[: len(body) // 2] if close == "middle" else b""
        for part in (bytes([byte]) for byte in data) if drip else [data]:
            self.wfile.write(part)
            if drip:
                time.sleep(drip)
        if close or headers:  # which may not tell where the answer ends
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_WR)

    def log_message(self, *_):
        """Stay silent: `tenant.requests` is the log."""


def problem_of(request, query, pairs):
    """Return what makes the request malformed, or None."""
    names = [name for name, _ in pairs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        return f"Duplicate parameter: {repeated}"
    if request.method == "POST":
        if query:
            return "Parameters belong in the body, not in the URL"
        if request.headers.get_content_type() != "application/x-www-form-urlencoded":
            return "Content-Type must be application/x-www-form-urlencoded"
    return None


# ---- Practice tenant: the tenant -----------------------------------------------------------------

FAULTS = {"status", "body", "headers", "close", "drip", "grant_type", "change"}
SECRET_PARAM = re.compile(
    "code|code_verifier|device_code|password|otp|client_secret|client_assertion|(.+_)?token"
)
API, OTHER_API = "https://api.example.test/", "https://other.example.test/"


class Tenant:
    """An Auth0-like tenant on http://127.0.0.1:PORT, for a `with` block.

    The settings are keyword arguments too, and may change while it runs. Its verbs are for tests
    (and for the demo): they play the user, the administrator, the clock and the broken network.
    """

    access_ttl = 86400  # seconds, like all times here
    id_ttl = 36000
    code_ttl = 60
    device_ttl = 900
    device_interval = 5
    enforce_interval = True  # a poll that comes too early is answered with slow_down
    rotation = True
    leeway = 0  # after its rotation a refresh token is good for this long (Auth0: overlap period)
    token_delay = 0.0  # /oauth/token works at once, but answers so much later
    any_loopback_port = False  # accept callbacks on every port of 127.0.0.1
    authorization_response_iss = False  # RFC 9207
    org_names = False
    id_claims = None  # changes for each ID token: a dict (None deletes), or claims -> dict

    def __init__(self, *, port=0, **settings):
        self.port, self._server = port, None
        self.apis = {
            API: ["read:things", "write:things", "read:reports", "write:reports"],
            OTHER_API: ["read:other"],
        }
        self.mrrt = {}  # audience -> scopes that any refresh token is good for, too
        self.orgs = {"org_1": "acme"}
        self.realms = ["Username-Password-Authentication"]
        for name, value in settings.items():
            if name.startswith("_") or callable(getattr(self, name, callable)):
                raise TypeError(f"Tenant has no setting {name!r}")
            setattr(self, name, value)
        self.clients = {client.client_id: client for client in practice_clients()}
        self.users = practice_users()
        self.requests, self.assertions, self.sessions = [], [], []
        self.logins, self.codes, self.devices = {}, {}, {}
        self.access_tokens, self.refresh_tokens = {}, {}
        self.secrets = {user.password for user in self.users.values()}
        self.secrets.update(c.client_secret for c in self.clients.values() if c.client_secret)
        self._offset, self._rotations, self._once, self._always = 0, 0, [], []
        self._changed, self._gate = threading.Condition(), threading.Event()
        self._gate.set()

    def start(self):
        """Serve, on the same port again after `close`."""
        self._server = Server(self, self.port)
        self.port = self._server.server_port
        self._server.serve()
        return self

    def close(self):
        """Refuse connections from now on."""
        self.release()
        if self._server:
            self._server.close()
            self._server = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    @property
    def domain(self):
        """What goes into AUTH0_DOMAIN."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def issuer(self):
        """The domain with a slash, as in `iss`."""
        return self.domain + "/"

    # The endpoints' view

    def now(self):
        """Return the tenant's time."""
        return time.time() + self._offset

    def key(self, distance):
        """Return the signing key: 0 the current one, 1 the next one."""
        return KEYS[(self._rotations + distance) % len(KEYS)]

    def new_secret(self, kind):
        """Return an opaque token."""
        secret = f"practice-{kind}-{secrets.token_urlsafe(24)}"
        self.secrets.add(secret)
        return secret

    def new_refresh_token(self, session, parent=None):
        """Return a refresh token of the session; `parent` is the record of the one before."""
        token = self.new_secret("refresh")
        self.refresh_tokens[token] = SimpleNamespace(
            session=session, parent=parent, rotated_at=None, is_superseded=False
        )
        return token

    def allows_callback(self, client, redirect_uri):
        """Compare the whole string, port included, as Auth0 does."""
        is_loopback = re.fullmatch(r"http://127\.0\.0\.1:\d+/callback", redirect_uri)
        return redirect_uri in client.callbacks or bool(self.any_loopback_port and is_loopback)

    def org_id(self, organization):
        """Return the id for an id or, if the tenant allows names, a name; else None."""
        names = {name: org_id for org_id, name in self.orgs.items()} if self.org_names else {}
        return organization if organization in self.orgs else names.get(organization)

    def find_device(self, user_code):
        """Return the device record; case and separators do not matter (RFC 8628 section 6.1)."""

        def plain(code):
            return re.sub(r"\W", "", code).upper()

        codes = {plain(device.user_code): device for device in self.devices.values()}
        return codes.get(plain(user_code))

    def answer(self, request, problem):
        """Log the request, and return (fault, reply)."""
        with self._changed:
            found = (text for name, text in request.params.items() if SECRET_PARAM.fullmatch(name))
            # Short ones are a test's nonsense, and would be found in any output.
            self.secrets.update(text for text in found if len(text) >= 8)
            self.requests.append(request)
            self._changed.notify_all()
            fault, reply = self._with_fault(request, problem)
        if request.path == "/oauth/token":
            time.sleep(self.token_delay)
            self._gate.wait(20)
        with self._changed:
            request.status = 0 if fault.get("close") in ("before", "after") else reply.status
            if isinstance(reply.body, dict):
                request.error = reply.body.get("error")
            self._changed.notify_all()
        return fault, reply

    def _with_fault(self, request, problem):
        wanted = {request.params.get("grant_type")}
        wanted |= {GRANTS[name][0] for name in wanted if name in GRANTS} | {None}
        faults = [how for path, how in [*self._once, *self._always] if path == request.path]
        fault = next((how for how in faults if how.get("grant_type") in wanted), {})
        if fault.get("close") == "before":
            reply = Reply(200)
        elif "status" in fault or "body" in fault:
            body = fault.get("body", b"")
            reply = Reply(fault.get("status", 200), body(request) if callable(body) else body)
        else:
            reply = self._respond(request, problem)
        if "change" in fault:
            # A forgery waits for the success that it falsifies: polls may fail before.
            if reply.status != 200:
                return {}, reply
            reply.body = fault["change"](reply.body)
        reply.headers = {**reply.headers, **fault.get("headers", {})}
        self._once = [item for item in self._once if item[1] is not fault]
        return fault, reply

    def _respond(self, request, problem):
        function = ROUTES.get((request.method, request.path))
        if function is None:
            return Reply(404, "Not Found")
        try:
            if problem and request.path.startswith("/oauth/"):
                raise oauth_error("malformed", problem=problem)
            if problem:
                raise error_page(400, problem)
            return function(self, request)
        except RefusalError as refusal:
            return refusal.reply

    # Verbs: the user

    def approve(self, user_code, user="alice"):
        """Confirm the user code."""
        self._decide(user_code, "approved", self.users[user])

    def deny(self, user_code):
        """Cancel at the page that shows the user code."""
        self._decide(user_code, "denied", None)

    def _decide(self, user_code, decision, user):
        with self._changed:
            device = self.find_device(user_code)
            if device is None:
                raise LookupError("no device waits with this user code")
            device.decision, device.user = decision, user

    def login_as(self, url, user="alice", deny=False, user_code=""):
        """Open an authorization or verification URL, fill in the forms, follow to the end.

        Returns the last page: status, url, text, headers. `user_code` is for a verification URL
        that does not carry it.
        """
        last = fetch(url)
        while last.url.startswith(self.issuer):
            form = re.search(
                r'<form method="post" action="(.*?)">(.*?)</form>', last.text, re.DOTALL
            )
            if form is None:
                break
            hidden = re.findall(r'type="hidden" name="(.*?)" value="(.*?)"', form[2])
            fields = {name: html.unescape(value) for name, value in hidden}
            if 'name="action"' in form[2]:
                fields.update(user=user, action="decline" if deny else "accept")
            last = fetch(urljoin(last.url, form[1]), {"user_code": user_code, **fields})
        return last

    # Verbs: the administrator and the clock

    def rotate_keys(self):
        """Sign with the next key from now on, and show the one after it."""
        self._rotations += 1

    def revoke_sessions(self, user):
        """End all refresh tokens of the user."""
        with self._changed:
            for session in self.sessions:
                if session.user is self.users[user]:
                    session.is_alive = False

    def expire_access_tokens(self):
        """Let an API refuse all access tokens; a client goes on trusting the `expires_in` it got.

        (`advance` would also age codes and sessions, and date new ID tokens in the future.)
        """
        with self._changed:
            for token, (session, scopes, _) in self.access_tokens.items():
                self.access_tokens[token] = (session, scopes, 0)

    def advance(self, seconds):
        """Move the tenant's clock; nobody else's."""
        self._offset += seconds

    def sign(self, claims, header=None, key=None):
        """Return a JWT; for forgeries, `header` changes the header (None deletes).

        `key` is a `Key`, or bytes for HS256; by default the current key. The signature is of the
        key's kind whatever the header says.
        """
        key = key or self.key(0)
        is_hmac = isinstance(key, bytes)
        standard = {"alg": "RS256", "typ": "JWT", "kid": key.kid if not is_hmac else None}
        parts = [overridden(standard, header or {}), claims]
        message = ".".join(b64url(json.dumps(part).encode()) for part in parts)
        if is_hmac:
            return f"{message}.{b64url(hmac.new(key, message.encode(), 'sha256').digest())}"
        return f"{message}.{b64url(key.sign(message.encode()))}"

    # Verbs: the log

    def count(self, what):
        """Return how many requests came to a path, or how many for tokens by a grant type."""

        def names(request):
            grant_type = request.params.get("grant_type")
            return request.path, grant_type, GRANTS.get(grant_type, (None,))[0]

        with self._changed:
            return sum(what in names(request) for request in self.requests)

    def wait_for(self, predicate, timeout=10):
        """Wait until the predicate holds; asked whenever a request comes in or is answered."""
        with self._changed:
            if not self._changed.wait_for(predicate, timeout):
                raise AssertionError(f"nothing happened at the tenant within {timeout} seconds")

    # Verbs: the broken network

    def break_next(self, path, **how):
        """Answer the next request to the path badly; several calls queue up.

        status, body (bytes, text, or a dict for JSON)   answered instead of being processed
                                                 (body may be a function of the request)
        headers                                          added to the answer; None removes
        close    "before" or "after" the processing, without an answer; "middle" of the answer
        drip     seconds between the bytes of the answer
        change   a function from the JSON of the next success to the JSON to send
        grant_type                                       only requests for tokens of this grant
        """
        self._break(self._once, path, how)

    def break_all(self, path, **how):
        """Answer all requests to the path badly, until `mend`."""
        self._break(self._always, path, how)

    def _break(self, faults, path, how):
        if set(how) - FAULTS:
            raise TypeError(f"no such fault: {set(how) - FAULTS}")
        with self._changed:
            faults.append((path, how))

    def hold(self):
        """Process requests for tokens, but answer them only after `release`."""
        self._gate.clear()

    def release(self):
        """Send the answers that are held back, and the next ones at once."""
        self._gate.set()

    def mend(self):
        """Forget all faults."""
        with self._changed:
            self._once, self._always = [], []


def practice_clients():
    """Return the applications; their callbacks are the default ones of auth0_cli.py."""
    interactive = {"authorization_code", "device_code", "refresh_token"}
    native = interactive | {"password", "password-realm"}

    def client(client_id, grants, client_secret=None, client_grants=()):
        record = SimpleNamespace(client_id=client_id, grants=grants, client_secret=client_secret)
        record.callbacks = [f"http://127.0.0.1:{port}/callback" for port in range(18484, 18489)]
        record.client_grants = list(client_grants)  # audiences
        record.assertion = False  # True: authenticates with a client_assertion
        return record

    return [
        client("practice-native", native),
        client("practice-other", set(native)),
        client("practice-nodevice", {"authorization_code"}),
        client("practice-machine", {"client_credentials"}, "machine-secret-~!%:+ &x", [API]),
        client("practice-web", interactive, "web-secret-~!%:+ &x"),
    ]


def practice_users():
    """Return the users by name; nobody has the permission write:reports."""

    def user(key, name, password, *permissions):
        record = SimpleNamespace(sub=f"auth0|{key}", name=name, email=f"{key}@example.test")
        record.password, record.blocked, record.mfa = password, False, False
        record.permissions = {"read:things", "read:other", *permissions}
        return record

    return {
        "alice": user("alice", "Alice Liddell", "wonderland-1", "write:things", "read:reports"),
        "bob": user("bob", "Bob Builder", "builder-1"),
    }


class LoopbackRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect on this machine only."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """Refuse a redirect to another machine."""
        host = urlsplit(newurl).hostname
        if host not in LOOPBACK:
            raise urllib.error.URLError(f"a redirect leads to another machine: {host}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Connection(HTTPConnection):
    """A connection of the played browser."""

    def connect(self):
        """Connect."""
        super().connect()
        reset_at_close(self.sock)


class HTTPHandler(urllib.request.HTTPHandler):
    """Opens such connections."""

    def http_open(self, req):
        """Open a URL."""
        return self.do_open(Connection, req)


@functools.cache
def direct_opener():
    """Make the opener once: from Python 3.12 on it reads all certificates each time."""
    handlers = (urllib.request.ProxyHandler({}), HTTPHandler(), LoopbackRedirects())
    return urllib.request.build_opener(*handlers)


def fetch(url, fields=None):
    """Open the URL like a browser without a proxy; return status, url, text and headers."""
    body = None if fields is None else urlencode(fields).encode()
    try:
        response = direct_opener().open(url, body, timeout=30)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        last = SimpleNamespace(status=response.status, url=response.geturl())
        last.headers, last.text = response.headers, response.read().decode("utf-8", "replace")
    return last


# ---- Commands: tenant, demo and live -------------------------------------------------------------


def serve_until_interrupted(port, as_json):
    """Run the `tenant` command.

    For programs (`--json`) any loopback port is good for a callback, since their tests run side by
    side, and a device polls each second. For people the tenant is as strict and slow as Auth0.
    """
    settings = {"any_loopback_port": True, "device_interval": 1} if as_json else {}
    with Tenant(port=port, **settings) as tenant, contextlib.suppress(KeyboardInterrupt):
        if as_json:
            ready = {"event": "ready", "env": practice_environment(tenant)}
            ready.update(machine=machine_environment(tenant), control=tenant.issuer + "practice")
            print(json.dumps(ready), flush=True)
        else:
            print_settings(tenant)
        while True:
            time.sleep(3600)
    return 0


def print_settings(tenant):
    """Print the lines to export, and for people how to use them."""
    for name, value in practice_environment(tenant).items():
        print(f"{name}={value}", flush=True)
    print(
        """
A practice tenant: it behaves like Auth0, on this machine only, until Ctrl-C.
Export the lines above, then: python auth0_cli.py login
Users, with their passwords for --flow password:""",
        file=sys.stderr,
    )
    for user in tenant.users.values():
        print(f"  {user.email}  {user.password}", file=sys.stderr)
    print("For a machine without a user, export these instead:", file=sys.stderr)
    for name, value in machine_environment(tenant).items():
        print(f"  {name}='{value}'", file=sys.stderr, flush=True)


def practice_environment(tenant):
    """Return the variables that point auth0_cli.py at the tenant."""
    return {
        "AUTH0_DOMAIN": tenant.domain,
        "AUTH0_CLIENT_ID": "practice-native",
        "AUTH0_AUDIENCE": API,
    }


def machine_environment(tenant):
    """Return the variables to change for a machine without a user."""
    machine = tenant.clients["practice-machine"]
    return {"AUTH0_CLIENT_ID": machine.client_id, "AUTH0_CLIENT_SECRET": machine.client_secret}


class Demo:
    """The tour: the neighbour file as a user runs it, against a tenant of its own."""

    program = Path(__file__).resolve().with_name("auth0_cli.py")

    def __init__(self, tenant, state_directory):
        self.tenant, self.process = tenant, None
        # A variable of the user's own tenant, above all its secret, must not get in here.
        others = [name for name in os.environ if not name.startswith("AUTH0_")]
        self.environment = {name: os.environ[name] for name in others}
        self.environment.update(practice_environment(tenant), AUTH0_CLI_CACHE=state_directory)

    def start(self, *arguments, **options):
        """Show a command and start it."""
        say(" ".join(("$ python auth0_cli.py", *arguments)))
        options.update(env=self.environment, encoding="utf-8")
        command = [sys.executable, str(self.program), *arguments]
        self.process = subprocess.Popen(command, **options)
        return self.process

    def finish(self):
        """Wait for the command, and end the demo if it failed."""
        if self.process.wait() != 0:
            raise SystemExit(f"demo: that command ended with exit status {self.process.returncode}")

    def run_command(self, *arguments):
        """Show a command, and run it to its end."""
        self.start(*arguments)
        self.finish()

    def stop(self):
        """Leave no command behind when the demo is interrupted."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()

    def run(self, use_browser):
        """Walk through the tour."""
        say(
            f"A practice tenant now runs on {self.tenant.domain}: it behaves like Auth0,",
            "belongs to this demo and ends with it. No account is needed.",
            "",
            "1. Log in.",
        )
        if use_browser:
            say("Your browser opens. Be Alice or Bob, and press 'Log in'.")
            self.run_command("login", "--flow", "browser")
        else:
            say("Without a browser: the program shows a code, the user approves it elsewhere.")
            self.log_in_with_device()
        say(
            "",
            "2. Use the access token. Here are its first characters; a script would pass it on",
            "   whole: python auth0_cli.py token --header | curl -H @- URL",
        )
        with self.start("token", stdout=subprocess.PIPE) as process:
            access_token = process.stdout.read().strip()
        self.finish()
        say(access_token[:20] + "…")
        say(
            "",
            "3. See who is logged in, to what, until when. This makes no request, it reads a file.",
        )
        self.run_command("status")
        say("", "4. Log out: the refresh token is revoked at the tenant, the file deleted.")
        self.run_command("logout")
        say(
            "",
            "That was all. How to do the same with a tenant of your own: README.md, 'Use it with",
            "your tenant'.",
        )

    def log_in_with_device(self):
        """Play Alice: read the user code from the program's JSON lines and approve it."""
        with self.start("login", "--flow", "device", "--json", stdout=subprocess.PIPE) as process:
            for line in process.stdout:
                say(line.rstrip())
                event = json.loads(line)
                if event["event"] == "device_code":
                    say(
                        f"   (Alice opens {event['verification_uri']} on her phone, compares the",
                        f"   code {event['user_code']} and approves. The program learns it at its",
                        "   next poll.)",
                    )
                    self.tenant.approve(event["user_code"], user="alice")
        self.finish()


def say(*lines):
    """Print before the next command prints."""
    print(*lines, sep="\n", flush=True)


def has_browser():
    """Tell whether somebody sits at this machine and can see a browser."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("SSH_CONNECTION"):
        return False
    if sys.platform not in ("win32", "darwin"):
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            return False
    try:
        return webbrowser.get() is not None
    except webbrowser.Error:
        return False


def run_demo(device):
    """Run the `demo` command."""
    if not Demo.program.exists():
        print(f"demo: {Demo.program} is missing", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as directory, Tenant(device_interval=1) as tenant:
        demo = Demo(tenant, directory)
        try:
            demo.run(use_browser=not device and has_browser())
        finally:
            demo.stop()
    return 0


NOTED_HEADERS = (
    "Date Cache-Control Retry-After WWW-Authenticate X-RateLimit-Limit X-RateLimit-Remaining"
    " X-RateLimit-Reset Auth0-RateLimit Auth0-Client-Quota-Limit"
).split()
LIVE_SCOPE = "openid profile email offline_access no:such"
NOWHERE = "https://unknown-api.invalid/"  # no tenant has this API


def live_callback():
    """Return a callback that the application has registered."""
    port = re.search(r"[1-9]\d*", os.environ.get("AUTH0_CALLBACK_PORTS", "")) or ["18484"]
    return f"http://127.0.0.1:{port[0]}/callback"


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect to whoever looks at it."""

    def redirect_request(self, *_):
        """Follow none."""


class Probe:
    """A tenant under `live`: each point is one request, summed up without any value of a secret.

    `expected` is what another tenant said at the same points; `decide` has a person approve the
    first two of three device codes and refuse the third one, and tells whether that was done.
    """

    def __init__(self, domain, client, pause, decide, expected=None):
        self.domain, self.client, self.decide, self.expected = domain, client, decide, expected
        self.pause, self.seen, self.headers, self.differences = pause, {}, {}, 0
        is_local = urlsplit(domain).hostname in LOOPBACK
        proxies = [urllib.request.ProxyHandler({})] if is_local else []
        self._opener = urllib.request.build_opener(NoRedirects(), *proxies)

    def ask(self, point, path, form=None, bearer=None, **query):
        """Send a request, note its point, and return the JSON object that came back."""
        url = self.domain + path + ("?" + urlencode(query) if query else "")
        body = None if form is None else urlencode(form).encode()
        headers = {"User-Agent": "auth0-cli-live", "Authorization": bearer and f"Bearer {bearer}"}
        request = urllib.request.Request(url, body, overridden(headers, {}))
        try:
            try:
                response = self._opener.open(request, timeout=30)
            except urllib.error.HTTPError as error:
                response = error
            with response:
                text = response.read(1 << 20)
        except (OSError, ValueError, HTTPException) as error:
            if not self.headers:  # the first response never came
                raise
            self.note(point, f"no response: {type(error).__name__}")
            return {}
        answer = as_json(text)
        self.headers[point] = {name for name in NOTED_HEADERS if name in response.headers}
        self.note(point, summary(self.domain, response, answer, (form or {}).get("scope", "")))
        return answer if isinstance(answer, dict) else {}

    def note(self, point, text):
        """Keep what was seen at a point; beside another tenant's, say whether it is the same."""
        self.seen[point] = text
        if self.expected and text == self.expected.seen[point]:
            say(f"same     {point}: {text}")
        elif self.expected:
            self.differ(point, f"practice: {self.expected.seen[point]}", f"this one: {text}")

    def differ(self, point, *lines):
        """Print one difference."""
        self.differences += 1
        say(f"DIFFERS  {point}", *(f"         {line}" for line in lines))

    def compare_headers(self):
        """Say which headers came with other responses than the other tenant's."""
        points = self.headers.keys() & self.expected.headers.keys()
        for name in NOTED_HEADERS:
            seen = {point for point in points if name in self.headers[point]}
            expected = {point for point in points if name in self.expected.headers[point]}
            if seen != expected:
                missing = f"only practice: {', '.join(sorted(expected - seen)) or 'none'}"
                extra = f"only this one: {', '.join(sorted(seen - expected)) or 'none'}"
                self.differ(f"header {name}, of {len(points)} responses", missing, extra)

    def token(self, point, grant_type, **more):
        """Ask the token endpoint; a parameter that is None is left out."""
        form = overridden({**self.client, "grant_type": grant_type}, more)
        return self.ask(point, "/oauth/token", form)

    def device(self, point, **more):
        """Ask for a device code."""
        form = overridden({**self.client, "scope": LIVE_SCOPE}, more)
        return self.ask(point, "/oauth/device/code", form)

    def poll(self, point, device):
        """Ask whether somebody has decided on the device code."""
        return self.token(point, DEVICE_CODE, device_code=device["device_code"], audience=None)

    def run(self):
        """Go through all points that the settings allow."""
        self.ask("discovery", "/.well-known/openid-configuration")
        self.ask("discovery (OAuth)", "/.well-known/oauth-authorization-server")
        self.ask("keys", "/.well-known/jwks.json")
        self.ask("userinfo without a token", "/userinfo")
        self.ask("userinfo, unknown token", "/userinfo", bearer="unknown")
        self.token("token, no grant type", None)
        self.token("token, unknown grant type", "unknown")
        self.token("token, unknown client", "client_credentials", client_id="unknown-client")
        self.device("device code, unknown client", client_id="unknown-client")
        self.device("device code with a secret", client_secret="some-secret-of-nobody")
        revocation = {**self.client, "token": "unknown", "audience": None}
        self.ask("revocation of an unknown token", "/oauth/revoke", overridden(revocation, {}))
        if "client_secret" in self.client:
            self.run_machine()
        else:
            self.run_authorize()
            self.run_device()

    def run_machine(self):
        """Client credentials: right, wrong, for no API and for an unknown one."""
        kind = "client_credentials"
        self.token("machine", kind)
        self.token("machine, unknown scope", kind, scope="no:such")
        self.token("machine, wrong secret", kind, client_secret="some-secret-of-nobody")
        self.token("machine, no secret", kind, client_secret=None)
        self.token("machine, unknown API", kind, audience=NOWHERE)
        self.token("machine, no API", kind, audience=None)

    def run_authorize(self):
        """The authorization endpoint, up to its first response, and refusals of the exchange."""
        right = {
            **self.client,
            "response_type": "code",
            "redirect_uri": live_callback(),
            "scope": "openid",
            "state": secrets.token_urlsafe(32),
            "nonce": secrets.token_urlsafe(32),
            "code_challenge": secrets.token_urlsafe(32),
            "code_challenge_method": "S256",
        }
        for point, changes in {
            "authorize": {},
            "authorize, callback mismatch": {"redirect_uri": "http://127.0.0.1:1/callback"},
            "authorize, unknown client": {"client_id": "unknown-client"},
            "authorize, unknown API": {"audience": NOWHERE},
            "authorize, prompt=none": {"prompt": "none"},
            "authorize, no PKCE": {"code_challenge": None, "code_challenge_method": None},
            "authorize, unknown response type": {"response_type": "unknown"},
        }.items():
            self.ask(point, "/authorize", **overridden(right, changes))
        exchange = {"redirect_uri": right["redirect_uri"], "code_verifier": right["state"]}
        self.token("code missing", "authorization_code", **exchange)
        self.token("code unknown", "authorization_code", code="unknown", **exchange)
        self.token("refresh token unknown", "refresh_token", refresh_token="unknown")
        self.token("machine, no secret", "client_credentials")

    def run_device(self):
        """A device code before its approval and, with a person's help, what comes after it."""
        self.device("device code, unknown API", audience=NOWHERE)
        self.poll("poll, unknown code", {"device_code": "unknown"})
        devices = [self.device(f"device code {number}") for number in (1, 2, 3)]
        if not all("device_code" in device for device in devices):
            return
        interval = devices[0].get("interval")
        self.pause(interval + 1 if isinstance(interval, int) else 6)
        self.poll("poll after the interval", devices[0])
        self.poll("poll at once again", devices[0])
        if not self.decide(devices):
            return
        self.pause(12)  # slow_down asks for 5 seconds more (RFC 8628 section 3.5)
        first, second, _ = (
            self.poll(f"poll, {decision}", device)
            for decision, device in zip(("approved", "approved, too", "refused"), devices)
        )
        if "refresh_token" in first and "refresh_token" in second:
            self.run_refresh(first, second)
        self.pause(12)
        # At the end, since some servers revoke what a code brought when it comes again.
        self.poll("poll, code used", devices[0])
        self.poll("poll, refused before", devices[2])

    def run_refresh(self, first, second):
        """Refreshes of one session, up to the reuse of a rotated token; revocation of another."""
        self.ask("userinfo", "/userinfo", bearer=first.get("access_token"))
        before = token = first["refresh_token"]
        for point, changes in {
            "refresh": {"audience": None},
            "refresh, less scope": {"audience": None, "scope": "openid"},
            "refresh, scope not granted": {"audience": None, "scope": "openid other:scope"},
            "refresh, unknown API": {"audience": NOWHERE},
        }.items():
            answer = self.token(point, "refresh_token", refresh_token=token, **changes)
            before, token = token, answer.get("refresh_token", token)
        reuse = {"audience": None, "refresh_token": before}
        answer = self.token("refresh, the token before the last", "refresh_token", **reuse)
        reuse["refresh_token"] = token
        self.token("refresh, the last one after that", "refresh_token", **reuse)
        client = overridden(self.client, {"audience": None})
        for point, leftover in {
            "revocation": second["refresh_token"],
            "revocation of the other session": answer.get("refresh_token", token),
        }.items():
            self.ask(point, "/oauth/revoke", {**client, "token": leftover})
        reuse["refresh_token"] = second["refresh_token"]
        self.token("refresh after the revocation", "refresh_token", **reuse)
        bearer = second.get("access_token")
        self.ask("userinfo after the revocation", "/userinfo", bearer=bearer)


def as_json(text):
    """Return the JSON value, or None."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def printable(text):
    """Return the text of a server as one line that moves no cursor."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)[:2000]


def summary(domain, response, answer, scope):
    """Sum a response up: status, kind, place of a redirect, error code, names of members."""
    parts = [str(response.status), response.headers.get_content_type()]
    if "Location" in response.headers:
        place = urlsplit(urljoin(domain + "/", response.headers["Location"]))
        answer = dict(parse_qsl(place.query))
        is_own = place.netloc == urlsplit(domain).netloc
        path = re.sub(r"[\w-]{16,}", "*", place.path)  # the id of a transaction
        parts = [parts[0], f"to its own {path}" if is_own else "to the callback"]
    if isinstance(answer, dict):
        if "error" in answer:
            parts.append(f"error={answer['error']}")
        if "access_token" in answer and "scope" in answer and scope:
            dropped = set(scope.split()) - set(str(answer["scope"]).split())
            parts.append(f"scope without {' '.join(sorted(dropped)) or 'nothing'}")
    text = " ".join([*parts, names_in(answer)]).rstrip()
    return printable(text)


def names_in(value):
    """Return the names of members, also in a JWT, and none of their values."""
    if isinstance(value, dict):
        return "{" + ", ".join(name + names_in(value[name]) for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "".join(
            f"[{names}]" for names in sorted({names_in(item) for item in value}) if names
        )
    if isinstance(value, str) and value.startswith("eyJ") and value.count(".") in (2, 4):
        with contextlib.suppress(ValueError):
            parts = [base64.urlsafe_b64decode(part + "==") for part in value.split(".")[:2]]
            return "=JWT" + "".join(names_in(as_json(part)) for part in parts)
    return ""


def ask_person(devices):
    """Have a person decide on three device codes; tell whether that was done."""
    wanted = ("confirm it", "confirm it as well", "cancel it")
    if not sys.stdin.isatty():
        say("skipped  all that needs a login: no terminal, so nobody to log in")
        return False
    say("", "Open these addresses in a browser, log in and decide:")
    for device, what in zip(devices, wanted):
        link = device.get("verification_uri_complete") or device.get("verification_uri")
        say(printable(f"  {link}  code {device.get('user_code')}: {what}"))
    say("Then type y and Enter. Enter alone skips all that needs a login.")
    is_done = sys.stdin.readline().strip() != ""
    say("" if is_done else "skipped  all that needs a login")
    return is_done


def run_live(person=ask_person):
    """Run the `live` command: the same requests to a real tenant and to the practice tenant.

    It logs in twice and logs out again, and changes nothing else. Each machine's token that is
    asked for counts against the quota of the tenant.
    """
    names = ("AUTH0_DOMAIN", "AUTH0_CLIENT_ID", "AUTH0_CLIENT_SECRET", "AUTH0_AUDIENCE")
    domain, client_id, client_secret, audience = (
        os.environ.get(name, "").strip() for name in names
    )
    domain = (domain if "://" in domain else f"https://{domain}").rstrip("/")
    url = urlsplit(domain)
    is_safe = url.scheme == "https" or (url.scheme == "http" and url.hostname in LOOPBACK)
    if not (url.hostname and client_id and is_safe):
        print("live: set AUTH0_DOMAIN and AUTH0_CLIENT_ID as for auth0_cli.py", file=sys.stderr)
        return 2
    client = {"client_id": client_id, "client_secret": client_secret, "audience": audience}
    client = {name: value for name, value in client.items() if value}
    with Tenant() as tenant:
        tenant.clients["practice-native"].callbacks.append(live_callback())
        like = {"client_id": "practice-native"}
        if client_secret:
            machine = tenant.clients["practice-machine"]
            like = {"client_id": machine.client_id, "client_secret": machine.client_secret}
        if audience:
            like["audience"] = API

        def decide(devices):
            for device in devices[:2]:
                tenant.approve(device["user_code"])
            tenant.deny(devices[2]["user_code"])
            return True

        practice = Probe(tenant.domain, like, tenant.advance, decide)
        practice.run()
    say(f"Each point: what {domain} answered, beside the practice tenant.", "")
    probe = Probe(domain, client, time.sleep, person, practice)
    try:
        probe.run()
    except (OSError, ValueError, HTTPException) as error:
        print(f"live: {domain} does not answer: {error}", file=sys.stderr)
        return 2
    probe.compare_headers()
    say("", f"{probe.differences} differences at {len(probe.seen)} points and in their headers.")
    return 1 if probe.differences else 0


def interrupt(*_):
    """End on SIGTERM as on Ctrl-C, with everything cleaned up."""
    raise KeyboardInterrupt


def main(argv=None):
    """Run a command of this file."""
    signal.signal(signal.SIGTERM, interrupt)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", metavar="demo | tenant | live", required=True)
    demo = commands.add_parser("demo", help="log in, token, status, log out against the tenant")
    demo.add_argument("--device", action="store_true", help="with a device code, not a browser")
    tenant = commands.add_parser("tenant", help="serve the practice tenant until Ctrl-C")
    tenant.add_argument("--port", type=int, default=0, help="default: any free port")
    tenant.add_argument(
        "--json", action="store_true", help="one JSON line, for tests that drive it"
    )
    commands.add_parser("live", help="compare a real tenant with the practice tenant")
    options = parser.parse_args(argv)
    try:
        if options.command == "demo":
            return run_demo(options.device)
        if options.command == "live":
            return run_live()
        return serve_until_interrupted(options.port, options.json)
    except KeyboardInterrupt:
        return 130
    except (OSError, OverflowError) as error:
        print(f"test_auth0_cli: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())

# ---- Helpers: imports, constants and functions ---------------------------------------------------

import asyncio
import calendar
import errno
import gzip
import importlib.util
import io
import itertools
import pickle
import queue
import random
import select
import shlex
import shutil
import ssl
import stat
import struct
import types
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from email.parser import BytesHeaderParser
from urllib.parse import quote, quote_plus

import pytest

import auth0_cli
from auth0_cli import (
    Auth0,
    CacheError,
    ConfigError,
    FileCache,
    InvalidToken,
    LoginFailed,
    LoginRequired,
    MemoryCache,
    NetworkError,
    OAuthError,
    get_token,
)

OTHERS = "AUTH0_|PYTHON|SSH_|BROWSER$|DISPLAY$|WAYLAND_|WSL_|XDG_|.*_proxy$|CI$|KUBERNETES_"
POSIX = os.name == "posix"


if POSIX:
    import fcntl
    import pty
    import termios


def not_on_windows(why):
    """Skip where it has no meaning, and say why."""
    return pytest.mark.skipif(not POSIX, reason=why)


needs_modes = not_on_windows(
    "Windows guards a file by its access-control list, not by owner and mode"
)
needs_links = not_on_windows("on Windows nobody can link to what they may not write")
needs_fork = not_on_windows("Windows has no fork")
needs_signals = not_on_windows("Windows ends a process without a signal")
needs_pty = not_on_windows("Python opens no pseudo-terminal on Windows")


def has_mode(path, mode):
    """Tell whether the permissions are these, where they are not in an access-control list."""
    return not POSIX or stat.S_IMODE(path.stat().st_mode) == mode


MACHINE_SECRET = "machine-secret-~!%:+ &x"
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2066\r\nauth0_cli: all is well\x00\x7f\u200b"
OPEN = "import sys, urllib.request as u; u.urlopen(sys.argv[1])"


def table(names, rows):
    """Parametrize by a dict from the id of a case to its values."""
    return pytest.mark.parametrize(names, list(rows.values()), ids=list(rows))


def browser_that_runs(code, directory):
    """Return a BROWSER that is a script: its argument is the URL."""
    path = directory / "opener.py"
    path.write_text(code)
    return f"'{sys.executable}' '{path}' %s"


class Stream:
    """What a process writes to a pipe: read in the background, so that neither side blocks."""

    def __init__(self, pipe):
        self.text, self._lines = "", queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._reader.start()

    def _read(self, pipe):
        with pipe:
            for line in pipe:
                self.text += line
                self._lines.put(line)
        self._lines.put("")

    def line(self):
        """Wait for the next line; empty at the end."""
        return self._lines.get(timeout=30)

    def whole(self):
        """Wait for the end."""
        self._reader.join(30)
        return self.text


HEARS_CTRL_C = """if True:
    import os, signal, sys, threading
    def hear():
        while os.read(0, 1):
            signal.raise_signal(signal.SIGINT)
    threading.Thread(target=hear, daemon=True).start()
"""


def send_signal(process, number):
    """Send a signal; on Windows, where none reaches one process alone, a byte for HEARS_CTRL_C."""
    if POSIX:
        process.send_signal(number)
    else:
        os.write(process.stdin.fileno(), b"\n")
        time.sleep(0.3)  # until it is heard


class Command:
    """A command that runs: what it writes, and how it ends."""

    def event(self):
        """Wait for the next JSON line on stdout."""
        line = self.out.line()
        assert line, f"{self.args} ended without another event: {self.err.whole()}"
        return json.loads(line)

    def finish(self, exit=0):  # noqa: A002
        """Wait for the end with this exit code (None: any); return code, out and err."""
        out, err = self.out.whole(), self.err.whole()  # first, since `wait` polls
        code = self.wait()
        assert exit in (None, code), f"{self.args} exited with {code}: {err}"
        return SimpleNamespace(code=code, out=out, err=err)


class Running(Command):
    """A started `auth0_cli.py`, or a script that imports it."""

    def __init__(self, args, env, stdin, cwd, script=None, flags=()):
        self.args = args
        self.shows_token = script is not None or "token" in args
        start = ["-m", "auth0_cli"]  # which need not be compiled each time
        if stdin is HEARS_CTRL_C and not POSIX:
            main = "import auth0_cli; sys.exit(auth0_cli.main())"
            start = ["-c", f"{HEARS_CTRL_C}{script or main}"]
        elif script is not None:
            start = [*flags, "-c", script]
        self.process = subprocess.Popen(
            [sys.executable, *start, *args],
            env={**env, "PYTHONPATH": str(Demo.program.parent)},
            cwd=cwd,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.out, self.err = Stream(self.process.stdout), Stream(self.process.stderr)
        if stdin not in (None, HEARS_CTRL_C):
            with contextlib.suppress(BrokenPipeError), self.process.stdin as pipe:
                pipe.write(stdin)

    def say(self, line):
        """Write a line to its stdin."""
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def finish(self, exit=0):  # noqa: A002
        """Close its stdin; else as any command."""
        if self.process.stdin:
            self.process.stdin.close()
        return super().finish(exit)

    def wait(self):
        """Return the exit code of a process that has closed its output."""
        return self.process.wait(5)

    def stop(self):
        """End it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.finish(None)


class Within(Command):
    """A command within this process, in an environment and a copy of the module of its own.

    So it knows what a process of its own would know, for a tenth of the time.
    """

    pool = ThreadPoolExecutor()

    def __init__(self, args, env, stdin, cwd, in_thread):
        self.args, self.shows_token = args, "token" in args
        reads, writes = zip(*(os.pipe() for _ in range(2)))
        self.out, self.err = (Stream(os.fdopen(fd, encoding="utf-8")) for fd in reads)
        self.streams = [os.fdopen(fd, "w", encoding="utf-8", newline="\n") for fd in writes]
        data = io.BytesIO((stdin or "").encode())
        self.stdin = io.TextIOWrapper(data, "utf-8") if stdin is not None else open(os.devnull)  # noqa: SIM115
        self.before = dict(os.environ), os.getcwd(), sys.stdin, sys.stdout, sys.stderr
        self.put(env, cwd, self.stdin, *self.streams)
        if in_thread:
            self.code = self.pool.submit(self.run)
        else:
            self.code = Future()
            self.code.set_result(self.run())

    def put(self, env, cwd, *streams):
        os.environ.clear()
        os.environ.update(env)
        os.chdir(cwd)
        sys.stdin, sys.stdout, sys.stderr = streams

    def run(self):
        try:
            return another_program().main(list(self.args))
        finally:
            self.put(*self.before)
            for stream in (self.stdin, *self.streams):
                stream.close()

    def wait(self):
        return self.code.result(5)

    def stop(self):
        self.finish(None)


@functools.cache
def code_of_program():
    return importlib.util.find_spec("auth0_cli").loader.get_code("auth0_cli")


def another_program():
    """Return another copy of the module, which shares nothing with the imported one."""
    module = types.ModuleType("auth0_cli")
    module.__file__ = auth0_cli.__file__
    with pytest.MonkeyPatch.context() as patch:  # else it would never be gone
        patch.setattr(os, "register_at_fork", lambda **_: None, raising=False)
        exec(code_of_program(), vars(module))
    return module


class Cli:
    """The command line, in an environment of its own."""

    def __init__(self, tenant, directory):
        self.tenant, self.started = tenant, []
        self.cache, self.home = directory / "sessions", directory / "home"
        self.env = {**os.environ, **practice_environment(tenant), "TMPDIR": str(self.home)}
        self.env["AUTH0_CLI_CACHE"] = str(self.cache)

    def start(self, *args, stdin=None, env=None, kind=Running, **options):
        """Start a process; `env` changes the environment (None deletes)."""
        running = kind(args, overridden(self.env, env or {}), stdin, self.home, **options)
        self.started.append(running)
        return running

    def python(self, script, *args, **options):
        """Start a script in a process of its own, which finds the module; its stdin is open."""
        return self.start(*args, stdin=HEARS_CTRL_C, script=script, **options)

    def run(self, *args, stdin=None, env=None, exit=0):  # noqa: A002
        """Run a command to its end, within this process."""
        options = {"stdin": stdin, "env": env, "kind": Within, "in_thread": False}
        return self.start(*args, **options).finish(exit)

    def login(self, *args, user="alice", env=None):
        """Log in with a browser; the result has the browser's last page and the events, too."""
        command = ("login", "--flow", "browser", "--no-browser", "--json", *args)
        running = self.start(*command, env=env, kind=Within, in_thread=True)
        authorize = running.event()
        end = self.tenant.login_as(authorize["url"], user)
        result = running.finish()
        result.end, result.events = end, [json.loads(line) for line in result.out.splitlines()]
        return result

    def token(self, *args, **options):
        """Return the access token."""
        return self.run("token", *args, **options).out.strip()

    def status(self, *args):
        """Return the sessions."""
        return json.loads(self.run("status", "--json", *args, exit=None).out)

    @property
    def session_file(self):
        """The one session file."""
        (path,) = self.cache.glob("*.json")
        return path

    def edit(self, change):
        """Change what the session file holds."""
        record = json.loads(self.session_file.read_text())
        change(record)
        self.session_file.write_text(json.dumps(record))

    def expire(self):
        """Let the access tokens expire an hour ago."""

        def change(record):
            for token in record["tokens"]:
                token.update(obtained_at=time.time() - 7200, expires_at=time.time() - 3600)

        self.edit(change)

    def stop(self):
        """End what still runs."""
        for running in self.started:
            running.stop()

    def leaks(self):
        """Return where a secret is that belongs in session files and in what `token` prints."""
        texts = {f"stderr of {running.args}": running.err.text for running in self.started}
        for running in self.started:
            if not running.shows_token:
                texts[f"stdout of {running.args}"] = running.out.text
        for path in self.home.rglob("*"):
            if path.is_file() and "auth0_cli" not in path.parts:
                texts[path] = path.read_text("utf-8", "replace")
        return {
            place for place in texts for secret in self.tenant.secrets if secret in texts[place]
        }


def log_in(auth0, tenant, user="alice", flow="password", **options):
    """Log in within this process: with the flow that costs least, or a browser in a thread."""
    if flow == "password":
        password = tenant.users[user].password
        return auth0.login(flow=flow, username=user, password=password, **options)
    with ThreadPoolExecutor() as pool:

        def show(prompt):
            pool.submit(tenant.login_as, prompt["url"], user)

        return auth0.login(flow="browser", show=show, open_browser=False, timeout=20, **options)


def parameters(url):
    return dict(parse_qsl(urlsplit(url).query))


def event_of(result):
    """Return the last JSON line."""
    return json.loads(result.out.splitlines()[-1])


class Clock:
    """The program's clock: a sleep takes no time, and the tenant's clock goes with it."""

    def __init__(self, tenant):
        self.tenant, self.sleeps, self.then = tenant, [], {}

    def __getattr__(self, name):
        return getattr(time, name)

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.tenant.advance(seconds)
        self.then.pop(len(self.sleeps), lambda: None)()

    def time(self):
        return time.time() + sum(self.sleeps)

    def monotonic(self):
        return sum(self.sleeps)  # nothing else takes time, however busy the machine is


def expire_in(seconds):
    """Return the change of a session file whose tokens live for so long yet."""

    def change(record):
        for token in record["tokens"]:
            token.update(obtained_at=time.time() - 3600, expires_at=time.time() + seconds)

    return change


class DictCache:
    """The least that `cache=` accepts."""

    def __init__(self):
        self.data, self.mutexes = {}, {}

    def read(self, key):
        return self.data.get(key)

    def write(self, key, data):
        self.data[key] = data

    def delete(self, key):
        self.data.pop(key, None)

    def list(self):
        return list(self.data)

    def refuse_sessions(self, fail=lambda *_: 1 / 0):
        """Let the writes of sessions fail, but not those of what is beside them."""
        self.write = lambda key, data: key.count("~") == 2 and fail(key, data)

    @contextlib.contextmanager
    def lock(self, key, timeout):
        with self.mutexes.setdefault(key, threading.Lock()):
            yield


class Screen:
    """A command at a terminal: what it shows, as a person would see it."""

    def __init__(
        self,
        cli,
        *args,
        columns=80,
        lines=60,
        controls=True,  # whether it is the controlling terminal
        in_background=False,
        through="",  # a command that passes stderr on
        **env,
    ):
        if not POSIX:
            pytest.skip(needs_pty.kwargs["reason"])
        self.fd, theirs = pty.openpty()
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
        env = overridden({**cli.env, "TERM": "xterm", "LC_ALL": "C.UTF-8"}, env)

        take_the_terminal = (
            "import fcntl, os, sys, termios\n"
            "os.setsid()\n"
            f"{controls} and fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
            f"job = {in_background} and os.fork()\n"
            "if job:\n"
            "    print('ended as', os.waitpid(job, os.WUNTRACED)[1], flush=True)\n"
            "    os._exit(0)\n"
            f"{in_background} and os.setpgid(0, 0)\n"
            "import auth0_cli, threading, time\n"  # which looks more often for what is typed
            "wait, sleep = threading.Event.wait, time.sleep\n"
            "threading.Event.wait = lambda event, s=None: wait(event, s and min(s, 0.005))\n"
            "time.sleep = lambda s: sleep(min(s, 0.005))\n"
            "sys.exit(auth0_cli.main())"
        )
        command = [sys.executable, "-c", take_the_terminal, *args]
        if through:
            command = ["sh", "-c", f'"$@" 2>&1 | {through}', "sh", *command]
        env["PYTHONPATH"] = str(Demo.program.parent)
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        self.process = subprocess.Popen(command, env=env, **streams)
        os.close(theirs)
        self.raw = ""

    def until(self, pattern):
        """Read until the pattern is there, and return the match."""
        while True:
            match = re.search(pattern, self.raw)
            if match:
                return match
            if not self._read(20):
                raise AssertionError(f"{pattern} did not come: {self.raw!r}")

    def _read(self, seconds):
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # Linux says so when the other side has closed
            data = b""
        self.raw += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)

    def type(self, text):
        os.write(self.fd, text.encode())

    def finish(self, code=0):
        while self._read(20):
            pass
        assert self.process.wait(5) == code, self.raw
        os.close(self.fd)
        return self.raw


def callback_of(tenant, url, user="alice"):
    """Log in with a browser that can't reach this machine, and return where it ended."""

    class Stop(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, request, fp, code, msg, headers, newurl):
            if not newurl.startswith(tenant.issuer):
                return None
            return super().redirect_request(request, fp, code, msg, headers, newurl)

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Stop())
    with opener.open(url) as page:
        text, base = page.read().decode(), page.geturl()
    form = re.search(r'<form method="post" action="(.*?)">(.*?)</form>', text, re.DOTALL)
    hidden = re.findall(r'type="hidden" name="(.*?)" value="(.*?)"', form[2])
    fields = {name: html.unescape(value) for name, value in hidden}
    fields.update(user=user, action="accept")
    with pytest.raises(urllib.error.HTTPError) as ended:
        opener.open(urljoin(base, form[1]), urlencode(fields).encode())
    with ended.value as answer:
        return answer.headers["Location"]


def ask(request):
    """Return the status of what is asked with urllib."""
    try:
        with direct_opener().open(request) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


MISSING = object()


def changed(claims, name, value):
    """Return the claims with another value; a function makes it from the true one."""
    claims = dict(claims)
    if value is MISSING:
        claims.pop(name, None)
    else:
        claims[name] = value(claims.get(name)) if callable(value) else value
    return claims


def post(url, fields=None, body=None, **headers):
    """Send a form or, to a control endpoint, JSON."""
    encode = json.dumps if "/practice/" in url else urlencode
    body = encode(fields or {}).encode() if body is None else body
    try:
        response = direct_opener().open(urllib.request.Request(url, body, headers), timeout=20)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        answer = SimpleNamespace(status=response.status, headers=response.headers)
        answer.json = json.loads(response.read())
    return answer


def client(tenant, cache, **settings):
    """Return the library's view of the sessions there, with further settings."""
    settings = {"audience": API, "cache": cache, **settings}
    return Auth0(tenant.domain, "practice-native", **settings)


def machine(domain, cache=None):
    """Return a machine's client, which keeps nothing unless there is a cache for it."""
    settings = {"client_secret": MACHINE_SECRET, "audience": API, "cache": cache or MemoryCache()}
    return Auth0(domain, "practice-machine", **settings)


def read_only(monkeypatch, cache):
    true = os.open

    def fail(path, flags, *args, **kwargs):
        if flags & os.O_CREAT and str(path).startswith(str(cache)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return true(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", fail)


def full(monkeypatch, cache):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)


def without_locks(monkeypatch, cache):
    def fail(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock" if POSIX else "msvcrt.locking", fail)


def without_modes(monkeypatch, cache):
    for name in ("stat", "fstat"):
        true = getattr(os, name)

        def look(path, *args, true=true, **kwargs):
            info = true(path, *args, **kwargs)
            return os.stat_result((info.st_mode | 0o077, *info[1:]))

        monkeypatch.setattr(os, name, look)


def not_to_be_entered(monkeypatch, cache):
    for name in ("stat", "open", "listdir", "mkdir"):
        true = getattr(os, name)

        def fail(path, *args, true=true, **kwargs):
            if str(path).startswith(str(cache)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return true(path, *args, **kwargs)

        monkeypatch.setattr(os, name, fail)


SPOILT = {  # what is wrong with the file system -> what the message says
    read_only: "Read-only file system",
    full: "No space left on device",
    without_locks: "No locks available",
    without_modes: "keeps no permissions",
    not_to_be_entered: "Permission denied",
}
KEY = KEYS[0].jwk()


def claims_of(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def jwt(claims, header=None, key=KEYS[0]):
    """Sign claims; a header that is None is left out."""
    return Tenant.sign(None, claims, header, key)


def forge(tenant, make):
    """Replace the ID token of the next answer by what `make` returns for its claims."""

    def change(reply):
        token = make(claims_of(reply["id_token"]))
        if isinstance(token, str) and len(token) > 8:
            tenant.secrets.add(token)
        return overridden(reply, {"id_token": token})

    tenant.break_next("/oauth/token", change=change)


def number(value):
    return b64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


# What a server, a proxy or a captive portal may answer where a JSON object was awaited.
NO_OBJECT = {
    "an HTML page": {"body": "<html><title>Welcome to our Wi-Fi</title></html>"},
    "nothing": {"body": b""},
    "a JSON list": {"body": b"[]"},
    "a JSON string": {"body": b'"ok"'},
    "null": {"body": b"null"},
    "half of it": {"close": "middle"},
    "closed before": {"close": "before"},
    "closed after": {"close": "after"},
    "2 MiB": {"body": b'{"x": "' + b"x" * (2 << 20) + b'"}'},
    "2 MiB of spaces": {"body": b" " * (2 << 20) + b"{}"},
    "deep nesting": {"body": b'{"x":' + b"[" * 100_000},
    "deep objects": {"body": b'{"x":' * 100_000},
    "not UTF-8": {"body": b'{"x": "\xff"}'},
    "UTF-16": {"body": '{"access_token": "x"}'.encode("utf-16")},
    "a BOM": {"body": b'\xef\xbb\xbf{"access_token": "x", "token_type": "Bearer"}'},
    "gzip": {"body": gzip.compress(b"{}"), "headers": {"Content-Encoding": "gzip"}},
    "NaN": {"body": b'{"expires_in": NaN}'},
    "a number of 10,000 digits": {"body": b"1" * 10_000},
    "text after it": {"body": b'{"access_token": "x"}{}'},
    "more announced than sent": {"body": b"{}", "headers": {"Content-Length": "3"}},
    "an unfinished chunk": {
        "body": b"ff\r\n{}",
        "headers": {"Content-Length": None, "Transfer-Encoding": "chunked"},
    },
    "status 500": {"status": 500, "body": "<html>Oops</html>"},
    "status 502 in JSON": {"status": 502, "body": {"error": "server_error"}},
    "status 503": {"status": 503, "headers": {"Retry-After": "99999999999999999999"}},
    "status 407": {"status": 407},
    "status 404 in HTML": {"status": 404, "body": "<html>404</html>"},
    "status 304": {"status": 304},
}
KEY_FAULTS = ["an HTML page", "half of it", "closed after", "2 MiB", "deep nesting", "status 500"]


class Shared:
    """Its tests share a tenant, which each finds mended; their sessions are in memory."""

    @pytest.fixture
    def tenant(self, shared):
        yield shared
        shared.mend()
        shared.requests.clear()
        shared.orgs, shared.org_names = {"org_1": "acme"}, False
        shared.authorization_response_iss = False

    @pytest.fixture
    def auth0(self, tenant):
        return Auth0(tenant.domain, "practice-native", audience=API, cache=MemoryCache())


def answer_of(tenant, url):
    """Log Alice in at the tenant; return the callback's address without opening it."""
    fetch(url)
    state = list(tenant.logins)[-1]
    params = {"state": state, "user": "alice", "action": "accept"}
    return serve_login(tenant, SimpleNamespace(params=params)).headers["Location"]


def send(port, data):
    """Send bytes, then no more; return the connection."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    with contextlib.suppress(OSError):  # a refusal may come before the last byte
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    return connection


def receive(connection):
    """Return the answer with its status, headers and text; the status is None without a head."""
    data = b""
    with connection, contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            data += part
        reset_at_close(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    line, _, fields = head.partition(b"\r\n")
    answer = SimpleNamespace(status=None, headers={}, text=body.decode("utf-8", "replace"))
    if line.startswith(b"HTTP/1."):
        answer.status = int(line.split()[1])
        answer.headers = BytesHeaderParser().parsebytes(fields)
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    return answer


class WaitingLogin:
    """A login in a thread of this process; the test plays whoever finds its port."""

    def __init__(self, auth0, tenant, **options):
        self.tenant, prompts = tenant, queue.Queue()
        options = {"show": prompts.put, "open_browser": False, "timeout": 20, **options}
        self.pool = ThreadPoolExecutor(1)
        self.call = self.pool.submit(auth0.login, flow="browser", **options)
        self.url = prompts.get(timeout=10)["url"]
        self.redirect_uri, self.state = (parameters(self.url)[n] for n in ("redirect_uri", "state"))
        self.host = urlsplit(self.redirect_uri).netloc
        self.port = urlsplit(self.redirect_uri).port

    def request(self, target, *fields, method="GET", host=None, version="HTTP/1.1"):
        """Return the bytes of a request."""
        lines = [f"{method} {target} {version}", f"Host: {host or self.host}", *fields]
        return "\r\n".join([*lines, "", ""]).encode()

    def get(self, target, **options):
        return receive(send(self.port, self.request(target, **options)))

    def answer(self, more=""):
        """Return the request of the true callback."""
        return self.request(answer_of(self.tenant, self.url).partition(self.host)[2] + more)

    def follow(self, answer):
        """Return the page to which a callback leads."""
        assert answer.status == 303
        return self.get(answer.headers["Location"])

    def succeed(self):
        """Finish the login by its true callback."""
        end = self.tenant.login_as(self.url)
        assert (end.status, self.result().user["sub"]) == (200, "auth0|alice")

    def result(self):
        return self.call.result(20)


@contextlib.contextmanager
def raw_server(answer):
    """Answer each request with what `answer` makes of its bytes; yield port, requests.

    That is bytes, or several that go out one after the other.
    """
    seen = []

    class Connection(socketserver.BaseRequestHandler):
        def handle(self):
            data = self.request.recv(65536)
            wanted = re.search(rb"(?i)content-length: (\d+)", data)
            while wanted and len(data.partition(b"\r\n\r\n")[2]) < int(wanted[1]):
                data += self.request.recv(65536)
            seen.append(data)
            parts = answer(data)
            with contextlib.suppress(OSError):
                for part in [parts] if isinstance(parts, bytes) else parts:
                    self.request.sendall(part)

    class Raw(Waking, socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            """A client that goes away is what is tried here."""

    with Raw(("127.0.0.1", 0), Connection) as server:
        server.serve()
        yield SimpleNamespace(port=server.server_address[1], seen=seen)
        server.stop()


TLS_PEM = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgN4PEAlc4lnCSffqs
+Vut9E4kQDUMWY+j/ZTs3Q//we6hRANCAATLOAytJIC0pMubO+LCJtTt7hOB2Gxn
eH6oEOGFbNhMlDW9Hu9c6ORCWwnnIGREtaT1yRJVaA+go4/lljobpxrZ
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBYTCCAQigAwIBAgIBAjAKBggqhkjOPQQDAjANMQswCQYDVQQDDAJDQTAgFw0y
MDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowDDEKMAgGA1UEAwwBeDBZMBMG
ByqGSM49AgEGCCqGSM49AwEHA0IABMs4DK0kgLSky5s74sIm1O3uE4HYbGd4fqgQ
4YVs2EyUNb0e71zo5EJbCecgZES1pPXJElVoD6Cjj+WWOhunGtmjWDBWMBQGA1Ud
EQQNMAuCCWxvY2FsaG9zdDAfBgNVHSMEGDAWgBTgM+dhRwSbzAFuKzy6hiUh+j5e
LjAdBgNVHQ4EFgQU5Z4ULkUIyPSOIBIFWCY/E7jJAyMwCgYIKoZIzj0EAwIDRwAw
RAIgKHK/eWczRZ7bqE6iAeTTTZ8B27GaIaRSo92cZxqxYFACIEbtnS917aHwXz4O
ri1dcXKr9iF6F3GpDxC9CYGzFj/Q
-----END CERTIFICATE-----
"""
# Not strictly RFC 5280, like the CAs of many companies: its basicConstraints are not critical.
CA_PEM = """-----BEGIN CERTIFICATE-----
MIIBOTCB4KADAgECAgEBMAoGCCqGSM49BAMCMA0xCzAJBgNVBAMMAkNBMCAXDTIw
MDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjANMQswCQYDVQQDDAJDQTBZMBMG
ByqGSM49AgEGCCqGSM49AwEHA0IABMiZu3HdTYm407pl9vYaIhC7eC8nHXOpTfbW
xNyGj9nR/fOSDQYG4ud3ZC5uZyYsFIT6a12xdvr85YTgQ2Ep54WjLzAtMAwGA1Ud
EwQFMAMBAf8wHQYDVR0OBBYEFOAz52FHBJvMAW4rPLqGJSH6Pl4uMAoGCCqGSM49
BAMCA0gAMEUCIQDpnPo4vlhiGtYT4zcS4mdtRJ3mDd5ZmMIXNGzMTxjBCgIgQYQd
+vniBX4h7otH8Zz1rPnJkjb28M2JrIbY5R9CBnE=
-----END CERTIFICATE-----
"""


# ---- Helpers: fixtures ---------------------------------------------------------------------------


def clean(monkeypatch, directory):
    """Hide the settings, language, proxies, browser and sessions of whoever runs the tests."""
    for name in list(os.environ):
        if re.match(OTHERS, name, re.IGNORECASE):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LANGUAGE", "C")  # argparse looks for no translations
    (directory / "home").mkdir()
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(directory / "home"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    clean(monkeypatch, tmp_path)


@pytest.fixture(autouse=True)
def quick_end(monkeypatch):
    """Let the program's server look each ms, instead of each 10, whether its login is over."""
    serve = socketserver.BaseServer.serve_forever
    monkeypatch.setattr(socketserver.BaseServer, "serve_forever", lambda it, *_: serve(it, 0.001))


@pytest.fixture(autouse=True)
def unflushed(monkeypatch):
    """Let no test wait for the disk; those of the files do, and so do other processes."""
    monkeypatch.setattr(os, "fsync", os.fstat)


class Flushed:
    """Its tests write to the disk itself."""

    @pytest.fixture
    def unflushed(self):
        return


@pytest.fixture
def tenant():
    with Tenant() as tenant:
        yield tenant


@pytest.fixture
def cli(clean_environment, tenant, tmp_path):
    cli = Cli(tenant, tmp_path)
    yield cli
    cli.stop()
    assert not cli.leaks()


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """Run side by side what compiles this file and then mostly waits; return how each ended."""
    directory = tmp_path_factory.mktemp("scripts")
    (block,) = re.findall(r"```py\n(.*?)```", TestReadme.readme, re.DOTALL)
    imports = "import json, subprocess, sys, urllib.request, pytest\n"
    imports += "from auth0_cli import Auth0, MemoryCache, main\n"
    (directory / "test_program.py").write_text(imports + block)
    shutil.copy(__file__, directory / "practice_tenant.py")
    commands = {
        "demo": [__file__, "demo", "--device"],
        "live": [__file__, "live"],
        "fixture": ["-m", "pytest", "-q", "test_program.py"],
    }
    with Tenant(device_interval=0) as tenant, ThreadPoolExecutor() as pool:
        with pytest.MonkeyPatch.context() as patch:
            clean(patch, directory)
            cli = Cli(tenant, directory)
        options = {"env": {**cli.env, "PYTHONPATH": str(Demo.program.parent)}, "cwd": directory}
        options.update(input="y\n", capture_output=True, encoding="utf-8", check=False)
        options["errors"] = "replace"  # Windows writes to a pipe in another character set
        calls = {
            name: pool.submit(subprocess.run, [sys.executable, *command], **options)
            for name, command in commands.items()
        }
        ended = {name: call.result() for name, call in calls.items()}
    assert not cli.leaks()
    return SimpleNamespace(tenant=tenant, **ended)


@pytest.fixture
def auth0(cli):
    """Return the library's view of the same session."""
    return Auth0(cli.tenant.domain, "practice-native", audience=API, cache=cli.cache)


@pytest.fixture
def desk(tenant, monkeypatch):
    """Let the program find a browser, in which Alice logs in."""
    with ThreadPoolExecutor() as pool:

        def open_browser(url):
            pool.submit(tenant.login_as, url)
            return True

        monkeypatch.setattr(auth0_cli, "_has_local_display", lambda: True)
        monkeypatch.setattr(auth0_cli, "_find_browsers", lambda: [["a browser"]])
        monkeypatch.setattr(auth0_cli, "_open_browser", open_browser)
        yield


@pytest.fixture
def logged_in(cli, auth0):
    log_in(auth0, cli.tenant)
    return cli


@pytest.fixture
def installed():
    """Return a function that installs a signal handler for this test."""
    before = {}

    def install(number, handler):
        before[number] = signal.signal(number, handler)
        return handler

    yield install
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def kept(cli, tenant):
    """Return the library's view of a session, as before anything has gone wrong."""
    auth0 = client(tenant, cli.cache, profile="default")
    log_in(auth0, tenant)
    tenant.requests.clear()
    return auth0


@pytest.fixture(params=SPOILT, ids=lambda spoil: spoil.__name__)
def spoilt(request, cli, monkeypatch):
    """Let nothing be kept in the directory; return words of the message."""
    if not POSIX and request.param is without_modes:
        pytest.skip(needs_modes.kwargs["reason"])
    cli.cache.mkdir(0o700, exist_ok=True)
    request.param(monkeypatch, cli.cache)
    return SPOILT[request.param]


@pytest.fixture
def hurried(tenant, monkeypatch):
    """Let the program's waits take no time; return its clock, which knows them."""
    clock = Clock(tenant)
    monkeypatch.setattr(auth0_cli, "time", clock)
    return clock


@pytest.fixture
def watchful(monkeypatch):
    """Let the program look more often whether what it waits for is there."""
    clock, wait = types.SimpleNamespace(**vars(time)), threading.Event.wait
    clock.sleep = lambda s: time.sleep(min(s, 0.005))
    monkeypatch.setattr(auth0_cli, "time", clock)
    often = lambda event, s=None: wait(event, 0.005 if s == 0.25 else s)  # noqa: E731
    monkeypatch.setattr(threading.Event, "wait", often)


@pytest.fixture
def once_they_wait(tenant, monkeypatch):
    """Return a function: answer requests for tokens once so many threads wait for a lock."""

    def hold(threads):
        waiting, clock = set(), types.SimpleNamespace(**vars(time))

        def sleep(seconds):
            waiting.add(threading.get_ident())
            if len(waiting) >= threads:
                tenant.release()
            time.sleep(seconds)

        clock.sleep = sleep
        monkeypatch.setattr(auth0_cli, "time", clock)
        tenant.hold()

    return hold


@pytest.fixture
def call(auth0, tenant, capsys):
    """Return a function that runs a command within this process, up to its exit code.

    A failure is one printable line on stderr, without a secret in any spelling.
    """

    def call(*args, code=0, by=auth0):
        by = copy.copy(by)
        flags = {arg.partition("=")[0][2:].replace("-", "_") for arg in args if arg[:2] == "--"}
        flags = {name.removesuffix("_file") for name in flags}
        # The host program leaves to the command line what is given there.
        by._arguments = {name: None if name in flags else v for name, v in by._arguments.items()}
        found = auth0_cli.main(list(args), defaults=by)
        out, err = capsys.readouterr()
        assert found == code, err
        assert all(line.isprintable() for line in err.split("\n"))
        if code:
            assert out == ""
            assert re.fullmatch(r"(warning: .+\n)*auth0_cli: .{10,}\n", err)
        for secret in tenant.secrets if err else ():
            assert not [s for s in (secret, quote(secret, ""), quote_plus(secret)) if s in err]
        return SimpleNamespace(out=out, err=err)

    return call


@pytest.fixture(scope="module")
def shared():
    """Return a tenant for many tests."""
    with Tenant() as tenant:
        yield tenant


@pytest.fixture
def waiting(auth0, tenant):
    login = WaitingLogin(auth0, tenant)
    yield login
    with contextlib.suppress(OSError):
        if (answer := login.get(f"/callback?error=over&state={login.state}")).status == 303:
            login.follow(answer)
    login.pool.shutdown()


@pytest.fixture
def exchange(waiting, tenant):
    """Hold the exchange of the code from `begin`, which returns the browser's connection."""
    asked, go_on = threading.Event(), threading.Event()

    def hold(reply):
        asked.set()
        assert go_on.wait(10)
        return reply

    def begin(answer=None):
        connection = send(waiting.port, answer or waiting.answer())
        assert asked.wait(10)
        return connection

    tenant.break_next("/oauth/token", change=hold)
    yield SimpleNamespace(begin=begin, end=go_on.set)
    go_on.set()


@pytest.fixture
def tls(tenant, tmp_path):
    """Let the tenant speak TLS; return the file of the CA that issued its certificate."""
    chain, trusted = tmp_path / "chain.pem", tmp_path / "ca.pem"
    chain.write_text(TLS_PEM)
    trusted.write_text(CA_PEM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server = tenant._server
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return trusted


@pytest.fixture
def addresses(monkeypatch):
    """Let names have other addresses: `addresses[name] = [...]`; one that is missing is not found.

    Return them; `looked_up` lists the names and ports.
    """

    class Names(dict):
        pass

    names, real = Names(), socket.getaddrinfo

    def getaddrinfo(host, port, *rest, **more):
        names.looked_up.append((host, port))
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [found for name in names[host] for found in real(name, port, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    names.update({"localhost": ["127.0.0.1"], "127.0.0.1": ["127.0.0.1"]})
    names.looked_up = []
    return names


@pytest.fixture
def black_hole(monkeypatch):
    """Let connections to these addresses time out at once; return the tries and their limits."""
    connect, tries = socket.socket.connect, []

    def swallowed(self, address):
        tries.append((address[0], self.gettimeout()))
        if address[0] in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"):
            raise socket.timeout("timed out")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", swallowed)
    return tries


# ---- Stories: Browser flow -----------------------------------------------------------------------


needs_desktop = not_on_windows("Windows has its default browser, and no commands of a desktop")


def command_of(path, script):
    """Make a command of a shell script."""
    path.write_text(f"#!/bin/sh\n{script}\n" if POSIX else script)
    path.chmod(0o755)
    return path


class TestBrowserFlow:
    def test_gives_a_session_and_a_token_for_the_api(self, cli, tenant):
        _, end = cli.login().events
        user = {"sub": "auth0|alice", "name": "Alice Liddell", "email": "alice@example.test"}
        assert end == {
            "event": "logged_in",
            "domain": tenant.domain,
            "client_id": "practice-native",
            "profile": "default",
            "user": user,
        }
        assert cli.token() in tenant.access_tokens
        assert tenant.count("/oauth/token") == 1

    def test_asks_with_pkce_and_fresh_secrets(self, cli, tenant):
        first, second = (cli.login().events[0] for _ in range(2))
        assert set(first) == {"event", "url", "redirect_uri", "expires_in"}
        sent, then = parameters(first["url"]), parameters(second["url"])
        for name in ("state", "nonce", "code_challenge"):
            value = sent.pop(name)
            assert len(value) >= 43
            assert value != then[name]
        assert sent == {
            "response_type": "code",
            "client_id": "practice-native",
            "redirect_uri": first["redirect_uri"],
            "scope": "openid profile email offline_access",
            "audience": API,
            "code_challenge_method": "S256",
        }
        assert first["redirect_uri"] in tenant.clients["practice-native"].callbacks

    def test_passes_on_what_the_user_asks_for(self, cli):
        wanted = {"connection": "google-oauth2", "ext-colour": "a=b c"}
        flags = [f"--param={name}={value}" for name, value in wanted.items()]
        wanted.update(organization="org_1", scope="openid read:things")
        flags += ["--organization", "org_1", "--scope", "openid read:things"]
        assert wanted.items() <= parameters(cli.login(*flags).events[0]["url"]).items()

    def test_asks_next_time_as_at_the_last_login(self, cli):
        cli.login("--scope", "openid offline_access read:things")
        del cli.env["AUTH0_AUDIENCE"]
        sent = parameters(cli.login().events[0]["url"])
        assert (sent["audience"], sent["scope"]) == (API, "openid offline_access read:things")

    def test_browser_ends_on_a_quiet_page_without_the_code(self, cli):
        end = cli.login().end
        assert end.status == 200
        assert "?" not in end.url
        assert "<script" not in end.text
        assert "default-src 'none'" in end.headers["Content-Security-Policy"]
        assert end.headers["Cache-Control"] == "no-store"
        assert end.headers["Referrer-Policy"] == "no-referrer"
        assert end.headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize(
        ("fault", "code", "error"),
        [
            ({"status": 403, "body": {"error": "invalid_grant"}}, 4, "invalid_grant"),
            ({"close": "after"}, 5, "network_error"),
        ],
    )
    def test_browser_and_terminal_tell_the_same_failure(self, cli, tenant, fault, code, error):
        tenant.break_next("/oauth/token", **fault)
        running = cli.start("login", "--flow", "browser", "--no-browser", "--json")
        end = tenant.login_as(running.event()["url"])
        result = running.finish(code)
        assert event_of(result)["error"] == error
        assert "not logged in" in end.text
        assert cli.status() == []

    def test_denial_is_exit_4(self, cli, tenant):
        running = cli.start("login", "--flow", "browser", "--no-browser", "--json")
        tenant.login_as(running.event()["url"], deny=True)
        result = running.finish(4)
        end = event_of(result)
        assert (end["event"], end["error"]) == ("error", "access_denied")
        assert result.err.startswith("auth0_cli: ")

    @pytest.mark.parametrize("changes", [{"nonce": "of another login"}, {"org_id": "org_2"}])
    def test_an_id_token_that_fails_a_check_is_no_login(self, cli, tenant, changes):
        tenant.id_claims = changes
        arguments = ["login", "--flow", "browser", "--no-browser", "--json"]
        running = cli.start(*arguments, "--organization", "org_1")
        tenant.login_as(running.event()["url"])
        end = event_of(running.finish(4))
        assert end["error"] == "invalid_token"
        assert next(iter(changes)) in end["message"]
        assert cli.status() == []

    def test_time_out_is_exit_4_and_names_the_line_to_register(self, cli, tenant):
        result = cli.run("login", "--flow", "browser", "--no-browser", "--timeout", "0.05", exit=4)
        assert ", ".join(tenant.clients["practice-native"].callbacks) in result.err
        assert "Unknown client" in result.err
        assert result.out == ""

    def test_busy_port_is_skipped_and_port_0_is_any(self, cli, tenant):
        tenant.any_loopback_port = True
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = busy.getsockname()[1]
            authorize, end = cli.login("--port", f"{port},0").events
        assert str(port) not in authorize["redirect_uri"]
        assert end["event"] == "logged_in"

    def test_ports_that_are_all_busy_are_named(self, cli):
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = busy.getsockname()[1]
            result = cli.run("login", "--flow", "browser", "--port", str(port), exit=None)
        assert result.code in (1, 2, 4)
        assert f"http://127.0.0.1:{port}/callback" in result.err

    def test_opens_the_browser_of_the_environment(self, cli, tenant):
        browser = browser_that_runs(OPEN, cli.home)
        running = cli.start("login", "--flow", "browser", env={"BROWSER": browser})
        tenant.wait_for(lambda: tenant.requests)
        tenant.login_as(f"{tenant.domain}/authorize?{urlencode(tenant.requests[0].params)}")
        result = running.finish()
        assert result.out == ""
        assert f"Logged in to {tenant.domain} as Alice Liddell" in result.err

    @pytest.mark.parametrize(
        ("number", "code"),
        [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=needs_signals)],
    )
    def test_interruption_leaves_nothing_behind(self, cli, number, code):
        arguments = ("login", "--flow", "browser", "--no-browser", "--json")
        running = cli.start(*arguments, stdin=HEARS_CTRL_C)
        running.event()
        send_signal(running.process, number)
        assert "Traceback" not in running.finish(code).err
        assert cli.status() == []

    @pytest.mark.parametrize(
        ("user", "number", "to"),
        [(None, 22, "192.0.2.2"), ("alice", 2222, "-p 2222 alice@192.0.2.2")],
    )
    def test_an_ssh_session_is_told_which_port_to_forward(self, cli, tenant, user, number, to):
        env = {"SSH_CONNECTION": f"192.0.2.1 1 192.0.2.2 {number}", "USER": user}
        running = cli.start("login", "--flow", "browser", "--no-browser", env=env)
        lines = iter(running.err.line, "")
        url = next(line.strip() for line in lines if "/authorize?" in line)
        port = urlsplit(parameters(url)["redirect_uri"]).port
        assert any(line.strip() == f"ssh -L {port}:127.0.0.1:{port} {to}" for line in lines)
        tenant.login_as(url)
        running.finish()

    def test_no_browser_is_opened_where_none_may_be(self, auth0, monkeypatch):
        opened = []
        monkeypatch.setattr(auth0_cli, "_open_browser", opened.append)
        with pytest.raises(LoginFailed):
            auth0.login(flow="browser", open_browser=False, timeout=0.01)
        assert opened == []

    def test_the_page_is_shown_before_a_browser_is_started(self, auth0, monkeypatch):
        prompts, opened = [], []
        monkeypatch.setattr(
            auth0_cli, "_open_browser", lambda url: opened.append((url, list(prompts)))
        )
        with pytest.raises(LoginFailed):
            auth0.login(flow="browser", show=prompts.append, timeout=0.01)
        assert opened == [(prompts[0]["url"], prompts)]

    @pytest.mark.parametrize(
        "browsers",
        [
            *("{opener} --incognito", "no-such-browser:{opener}", "{false} %s:{opener} -u=%s"),
            *("{opener} &", "'never closed:{opener}", " :{opener}"),
        ],
    )
    def test_the_next_browser_is_tried_until_one_starts(self, cli, tenant, tmp_path, browsers):
        opened = cli.home / "opened"
        code = f"import os, sys; open({str(opened)!r} + '-', 'w').write('\\n'.join(sys.argv[1:])); "
        code += f"os.replace({str(opened)!r} + '-', {str(opened)!r})"
        opener = browser_that_runs(code, tmp_path).removesuffix(" %s")
        form = browsers.replace(":", os.pathsep)
        env = {"BROWSER": form.format(opener=opener, false="false" if POSIX else "taskkill")}
        running = cli.start("login", "--flow", "browser", env=env)
        lines = list(iter(running.err.line, "Your browser is opening the page.\n"))
        url = next(line.strip() for line in lines if "/authorize?" in line)
        tenant.wait_for(opened.exists)
        arguments = opened.read_text().splitlines()
        assert arguments[-1].removeprefix("-u=") == url
        assert "&" not in arguments
        tenant.login_as(url)
        running.finish()

    @pytest.mark.parametrize("name", ["browser.bat", "browser.CMD"])
    def test_a_script_of_cmd_exe_is_no_browser(self, tmp_path, monkeypatch, name):
        browser = command_of(tmp_path / name, "")
        monkeypatch.setenv("BROWSER", str(browser))
        assert not [c for c in auth0_cli._find_browsers() if str(browser) in c]

    @not_on_windows("a command with a space is a script of cmd.exe there")
    def test_a_path_with_a_space_is_a_browser_too(self, tmp_path, monkeypatch):
        browser = command_of(tmp_path / "my browser", f"echo $1 >'{tmp_path}/opened'")
        monkeypatch.setenv("BROWSER", str(browser))
        assert auth0_cli._open_browser("https://a.example/")
        assert (tmp_path / "opened").read_text() == "https://a.example/\n"

    @not_on_windows("Windows has no sessions of processes")
    def test_ctrl_c_in_the_terminal_is_not_for_the_browser(self, tmp_path, monkeypatch):
        code = f"import os; open({str(tmp_path / 'session')!r}, 'w').write(str(os.getsid(0)))"
        code += f"; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
        monkeypatch.setenv("BROWSER", browser_that_runs(code, tmp_path))
        assert auth0_cli._open_browser("https://a.example/")
        assert (tmp_path / "session").read_text() == (tmp_path / "pid").read_text()

    def test_a_browser_that_keeps_running_is_open(self, tmp_path, monkeypatch):
        wait = subprocess.Popen.wait
        impatient = lambda process, seconds=None: wait(process, seconds and seconds / 5)  # noqa: E731
        monkeypatch.setattr(subprocess.Popen, "wait", impatient)
        monkeypatch.setattr(auth0_cli, "_start_file", pytest.fail)
        end = tmp_path / "end"
        code = f"import os, time\nwhile not os.path.exists({str(end)!r}): time.sleep(0.01)"
        monkeypatch.setenv("BROWSER", f"{browser_that_runs(code, tmp_path)}{os.pathsep}false")
        assert auth0_cli._open_browser("https://a.example/")
        end.touch()

    @needs_desktop
    def test_no_browser_is_claimed_where_none_starts(self, cli, tenant):
        running = cli.start("login", "--flow", "browser", env={"BROWSER": "false", "DISPLAY": None})
        lines = list(iter(running.err.line, "Waiting for up to 300 s; Ctrl-C stops it.\n"))
        assert lines[0] == "To log in, open this page in a browser of this machine:\n"
        assert "Your browser" not in "".join(lines)
        tenant.login_as(lines[2].strip())
        running.finish()

    @needs_desktop
    @pytest.mark.parametrize(
        ("programs", "env", "found"),
        [
            ("xdg-open firefox", {}, "xdg-open %s|firefox %s"),
            ("kfmclient", {}, "kfmclient openURL %s"),
            ("gio", {"DISPLAY": None, "WAYLAND_DISPLAY": "wayland-0"}, "gio open %s"),
            ("xdg-open w3m", {"DISPLAY": None}, ""),
            ("wslview xdg-open", {"DISPLAY": None}, "wslview %s"),
            (
                "xdg-open firefox",
                {"BROWSER": "firefox -P me"},
                "firefox -P me %s|xdg-open %s|firefox %s",
            ),
            ("xdg-open lynx", {"BROWSER": "lynx"}, ""),
            ("xdg-open firefox w3m", {"BROWSER": "firefox:w3m %s"}, "firefox %s"),
            ("xdg-open", {"BROWSER": "lynx:'x %s: "}, "xdg-open %s"),
        ],
    )
    def test_browsers_are_tried_in_this_order(self, tmp_path, monkeypatch, programs, env, found):
        for program in programs.split():
            command_of(tmp_path / program, "")
        for name, value in {"PATH": str(tmp_path), "DISPLAY": ":0", "BROWSER": None, **env}.items():
            monkeypatch.delenv(name, False) if value is None else monkeypatch.setenv(name, value)
        monkeypatch.delenv("WAYLAND_DISPLAY", False) if "WAYLAND_DISPLAY" not in env else None
        assert "|".join(map(" ".join, auth0_cli._find_browsers())) == found

    @needs_desktop
    @pytest.mark.parametrize(
        "command", [["login", "--flow", "browser", "--timeout", "0.1"], ["doctor"]]
    )
    def test_no_search_asks_the_desktop(self, cli, tmp_path, command):
        command_of(tmp_path / "xdg-settings", f"touch '{tmp_path}/asked'")
        command_of(tmp_path / "xdg-open", f"touch '{tmp_path}/opened'")
        cli.run(
            *command, env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "DISPLAY": ":0"}, exit=None
        )
        assert (tmp_path / "opened").exists() is (command[0] == "login")
        assert not (tmp_path / "asked").exists()

    @pytest.mark.parametrize("name", ["SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"])
    def test_over_ssh_no_browser_would_be_seen(self, monkeypatch, name):
        monkeypatch.setattr(os.path, "exists", lambda path: False)  # this may be a container
        monkeypatch.setenv("DISPLAY", ":0")
        assert auth0_cli._has_local_display()
        monkeypatch.setenv(name, "x")
        assert not auth0_cli._has_local_display()

    @not_on_windows("Windows finds no library by LD_LIBRARY_PATH")
    @pytest.mark.parametrize("own", [None, "/opt/lib"])
    def test_a_frozen_program_gives_a_browser_the_system_s_libraries(
        self, tmp_path, monkeypatch, own
    ):
        monkeypatch.setattr(sys, "frozen", True, raising=False)
        monkeypatch.setenv("LD_LIBRARY_PATH", "/tmp/_MEI1")
        if own:
            monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", own)
        script = f"echo ${{LD_LIBRARY_PATH-none}} >'{tmp_path}/path'"
        monkeypatch.setenv("BROWSER", str(command_of(tmp_path / "browser", script)))
        assert auth0_cli._open_browser("https://a.example/")
        assert (tmp_path / "path").read_text() == f"{own or 'none'}\n"
        assert os.environ["LD_LIBRARY_PATH"] == "/tmp/_MEI1"


# ---- Stories: Device flow ------------------------------------------------------------------------


class TestDeviceFlow:
    @pytest.fixture
    def prompts(self, auth0):
        """Log in and collect the prompts: `prompts.login()`."""
        prompts = SimpleNamespace(seen=[])
        prompts.login = lambda **more: auth0.login(flow="device", show=prompts.seen.append, **more)
        prompts.code = lambda: prompts.seen[0]["user_code"]
        return prompts

    def test_approval_on_another_device_logs_in(self, cli, tenant):
        tenant.device_interval, tenant.enforce_interval = 1, False
        script = (
            "import auth0_cli, sys, time, types\n"  # whose clock runs five times as fast
            "clock = types.SimpleNamespace(**vars(time))\n"
            "clock.monotonic = lambda: 5 * time.monotonic()\n"
            "clock.sleep = lambda s: time.sleep(s / 5)\n"
            "auth0_cli.time = clock\n"
            "sys.exit(auth0_cli.main())"
        )
        running = cli.start("login", "--flow", "device", "--json", script=script)
        event = running.event()
        code, uri = event["user_code"], tenant.issuer + "activate"
        assert 0 < event.pop("expires_in") <= 300
        assert event == {
            "event": "device_code",
            "user_code": code,
            "verification_uri": uri,
            "verification_uri_complete": f"{uri}?user_code={code}",
        }
        tenant.login_as(uri, user="bob", user_code=code)
        assert event_of(running.finish())["user"]["sub"] == "auth0|bob"
        assert cli.token() in tenant.access_tokens

    def test_waits_a_fifth_longer_than_the_interval_before_each_poll(
        self, tenant, prompts, hurried
    ):
        hurried.then[3] = lambda: tenant.approve(prompts.code())
        prompts.login()
        assert hurried.sleeps == [pytest.approx(6)] * 3
        errors = [request.error for request in tenant.requests if "token" in request.path]
        assert errors == ["authorization_pending", "authorization_pending", None]

    def test_slows_down_by_five_seconds_for_good(self, tenant, prompts, hurried):
        tenant.break_next("/oauth/token", status=429, body={"error": "slow_down"})
        hurried.then[3] = lambda: tenant.approve(prompts.code())
        prompts.login()
        assert hurried.sleeps == [pytest.approx(seconds) for seconds in (6, 12, 12)]

    def test_a_broken_network_is_told_once(self, tenant, call, hurried):
        hurried.then[4] = lambda: [tenant.approve(code.user_code) for code in list(codes())]
        codes = tenant.devices.values
        for _ in range(2):
            tenant.break_next("/oauth/token", status=503)
        result = call("login", "--flow", "device")
        assert tenant.count("device_code") == 4
        assert result.err.count("Still trying until the code expires.") == 1

    @pytest.mark.parametrize(
        "fault", [{"status": 503}, {"close": "before"}, {"close": "middle"}, {"body": "<html>"}]
    )
    def test_lives_through_a_broken_network(self, tenant, prompts, hurried, fault):
        hurried.then[2] = lambda: tenant.approve(prompts.code())
        tenant.break_next("/oauth/token", **fault)
        assert prompts.login().user["sub"] == "auth0|alice"

    @pytest.mark.parametrize(
        ("decide", "error"),
        [
            (lambda tenant, code: tenant.deny(code), "access_denied"),
            (lambda tenant, code: tenant.advance(1000), "expired_token"),
            (lambda tenant, code: None, None),
        ],
        ids=["denied", "expired at the tenant", "nobody answers"],
    )
    def test_ends_without_an_approval(self, tenant, prompts, hurried, decide, error):
        hurried.then[2] = lambda: decide(tenant, prompts.code())
        with pytest.raises(LoginFailed) as caught:
            prompts.login(timeout=30)
        assert (caught.value.error, caught.value.exit_code) == (error, 4)

    def test_organization_that_could_not_be_checked_is_refused(self, cli, tenant):
        arguments = ["login", "--flow", "browser", "--organization", "org_1"]
        assert "openid" in cli.run(*arguments, "--scope", "read:things", exit=2).err
        assert tenant.requests == []

    def test_organization_is_refused_before_any_request(self, cli, tenant):
        result = cli.run("login", "--flow", "device", "--organization", "org_1", exit=2)
        assert "--flow browser" in result.err
        assert tenant.requests == []

    def test_a_grant_that_is_off_is_named(self, cli):
        result = cli.run("login", "--flow", "device", "--client-id", "practice-nodevice", exit=4)
        assert "Device Code" in result.err
        assert "Grant Types" in result.err

    def test_waits_no_longer_than_the_login_may_take(self, tenant, prompts, hurried):
        tenant.device_interval = 60
        with pytest.raises(LoginFailed, match="within 30 s"):
            prompts.login(timeout=30)
        assert hurried.sleeps == [pytest.approx(30, abs=0.1)]

    def test_asks_no_longer_than_the_code_is_good_for(self, tenant, prompts, hurried):
        tenant.device_ttl = 20
        body = {"error": "authorization_pending"}
        tenant.break_all("/oauth/token", status=403, body=body)
        hurried.then[9] = lambda: pytest.fail("it goes on")
        with pytest.raises(LoginFailed) as caught:
            prompts.login()
        assert caught.value.error == "expired_token"
        assert tenant.count("device_code") == 3

    @pytest.mark.parametrize(
        ("interval", "headers", "sleeps"),
        [
            (5, {}, [6, 12, 24, 6]),
            (50, {}, [60, 72, 72, 60]),
            (5, {"Retry-After": "40"}, [6, 48, 72, 6]),
        ],
    )
    def test_backs_off_while_the_tenant_has_a_problem(
        self, tenant, prompts, hurried, interval, headers, sleeps
    ):
        tenant.device_interval = interval
        for _ in range(2):
            tenant.break_next("/oauth/token", status=503, headers=headers)
        hurried.then[4] = lambda: tenant.approve(prompts.code())
        prompts.login()
        assert hurried.sleeps == [pytest.approx(seconds) for seconds in sleeps]

    @table(
        "changes",
        {
            "http": {"verification_uri": "http://evil.example/activate"},
            "javascript": {"verification_uri": "javascript:alert(1)"},
            "file": {"verification_uri": "file:///etc/passwd"},
            "a flag": {"verification_uri": "--remote-debugging-port=9222"},
            "a program": {"verification_uri": "calc.exe"},
            "user info": {"verification_uri": "https://auth0.com@evil.example/"},
            "a name like this machine's": {"verification_uri": "http://127.999.1.1/activate"},
            "a space": {"verification_uri": "https://acme.example/ --flag"},
            "a newline": {"verification_uri": "https://acme.example/\nhttps://evil.example/"},
            "an escape sequence": {"verification_uri": "https://acme.example/\x1b[2J"},
            "letters that look alike": {"verification_uri": "https://\u0430cme.example/"},
            "no host": {"verification_uri": "https:///activate"},
            "a broken address": {"verification_uri": "https://[::1/activate"},
            "no address": {"verification_uri": None},
            "a number as address": {"verification_uri": 7},
            "complete javascript": {"verification_uri_complete": "javascript:alert(1)"},
            "complete http": {"verification_uri_complete": "http://evil.example/?user_code=X"},
            "no user code": {"user_code": None},
            "an empty user code": {"user_code": ""},
            "a user code with escapes": {"user_code": f"ABCD{ESCAPES}"},
            "a user code that reads backwards": {"user_code": "\u202eABCD-EFGH"},
            "a number as user code": {"user_code": 12345678},
            "no device code": {"device_code": None},
            "a device code with a newline": {"device_code": "a\nb"},
            "expires_in as text": {"expires_in": "soon"},
            "expires_in negative": {"expires_in": -1},
            "expires_in 0": {"expires_in": 0},
            "expires_in boolean": {"expires_in": True},
            "interval as text": {"interval": "5 s"},
            "interval negative": {"interval": -5},
            "interval boolean": {"interval": True},
            **{
                f"the sign {sign}": {"verification_uri": f"https://acme.example/a{sign}b"}
                for sign in '@"<>\\^`{|}'
            },
            "too long": {"verification_uri": "https://acme.example/" + "x" * 2048},
            "a script of this machine": {"verification_uri": "javascript://127.0.0.1/%0aalert(1)"},
            "a file of this machine": {"verification_uri": "file://localhost/etc/passwd"},
            "a long user code": {"user_code": "X" * 65},
        },
    )
    def test_a_device_code_that_is_not_safe_is_not_shown(self, auth0, tenant, hurried, changes):
        prompts = []
        tenant.break_next("/oauth/device/code", change=lambda reply: overridden(reply, changes))
        with pytest.raises(auth0_cli.Auth0Error) as caught:
            auth0.login(flow="device", show=prompts.append, timeout=30)
        assert caught.value.exit_code == 4
        assert str(caught.value).isprintable()
        assert prompts == hurried.sleeps == []
        assert tenant.count("device_code") == 0

    @table(
        "changes, first, last",
        {
            "interval missing": ({"interval": None}, 5, 10),
            "interval 0": ({"interval": 0}, 0.5, 10),
            "interval a fraction": ({"interval": 0.001}, 0.5, 10),
            "interval long": ({"interval": 100}, 100, 125),
            "interval huge": ({"interval": 1e9}, 20, 240),
            "expires_in huge": ({"expires_in": 1e17}, 5, 10),
        },
    )
    def test_the_rhythm_of_a_device_login_stays_sane(
        self, auth0, tenant, hurried, changes, first, last
    ):
        tenant.break_next("/oauth/device/code", change=lambda reply: overridden(reply, changes))
        with pytest.raises(LoginFailed) as caught:
            auth0.login(flow="device", show=lambda _: None, timeout=200)
        assert caught.value.error in ("expired_token", None)  # the code's time, or ours
        assert first <= hurried.sleeps[0] <= last
        assert sum(hurried.sleeps) < 300

    def test_a_longer_retry_after_wins_over_the_interval(self, auth0, tenant, hurried):
        codes = []
        hurried.then[2] = lambda: tenant.approve(codes[0]["user_code"])
        fault = {"status": 429, "body": {"error": "slow_down"}, "headers": {"Retry-After": "40"}}
        tenant.break_next("/oauth/token", **fault)
        auth0.login(flow="device", show=codes.append)
        assert hurried.sleeps[1] >= 40

    def test_the_user_is_told_to_approve_only_what_they_started(self, cli):
        err = cli.run("login", "--flow", "device", "--timeout", "0.1", exit=4).err
        assert "never for a code that someone sent you" in err

    def test_the_device_code_is_requested_without_client_authentication(self, tenant, hurried):
        web = tenant.clients["practice-web"]
        secret = web.client_secret
        auth0 = Auth0(tenant.domain, "practice-web", client_secret=secret, cache=MemoryCache())
        auth0.login(flow="device", show=lambda prompt: tenant.approve(prompt["user_code"]))
        first, *polls = [request.params for request in tenant.requests if request.params]
        assert set(first) == {"client_id", "scope"}
        assert {poll["client_secret"] for poll in polls} == {secret}

    @table("fault", {name: NO_OBJECT[name] for name in KEY_FAULTS})
    def test_a_device_login_that_can_not_begin_is_exit_5(self, tenant, call, hurried, fault):
        tenant.break_all("/oauth/device/code", **fault)
        call("login", "--flow", "device", code=5)
        assert tenant.count("/oauth/token") == 0

    def test_a_device_login_does_not_wait_for_a_limit(self, auth0, tenant, hurried):
        headers = {"x-ratelimit-remaining": "9", "x-ratelimit-reset": str(int(time.time()) + 600)}
        body = {"error": "authorization_pending", "error_description": "wait"}
        tenant.break_next("/oauth/token", status=403, headers=headers, body=body)
        auth0.login(flow="device", show=lambda prompt: tenant.approve(prompt["user_code"]))
        assert sum(hurried.sleeps) < 60


class TestDeviceFlowInTwoSteps:
    """A device login that one process starts and another finishes."""

    def pass_interval(self, cli, tenant):
        """Let the next poll be due, of whichever process."""
        (path,) = cli.cache.glob("*pending.state")
        with FileCache(cli.cache).lock(path.stem, 5):
            pending = json.loads(path.read_text())
            path.write_text(json.dumps({**pending, "polled_at": pending["polled_at"] - 10}))
            tenant.advance(10)

    def test_it_is_not_started_for_an_organization(self, tenant):
        with pytest.raises(ConfigError, match="no organizations in the device flow"):
            client(tenant, MemoryCache(), organization="org_1").start_login()
        assert tenant.requests == []

    def test_it_is_not_started_where_nothing_can_be_kept(self, tenant):
        cache = DictCache()
        cache.write = lambda *_: 1 / 0
        with pytest.raises(CacheError):
            client(tenant, cache).start_login()
        assert tenant.requests == []

    def test_another_login_puts_an_end_to_it(self, auth0, tenant):
        tenant.approve(auth0.start_login()["user_code"])
        log_in(auth0, tenant, "bob")
        with pytest.raises(LoginRequired, match="no login is pending"):
            auth0.finish_login(timeout=0.1)
        assert auth0.session().user["sub"] == "auth0|bob"

    def test_one_that_has_expired_is_not_asked_about(self, auth0, tenant, hurried):
        hurried.sleep(auth0.start_login()["expires_in"] + 1)
        with pytest.raises(LoginFailed, match="the code has expired"):
            auth0.finish_login(timeout=0.1)
        assert tenant.count("device_code") == 0

    def test_a_clock_that_was_set_back_does_not_delay_it(self, auth0, tenant, hurried):
        tenant.approve(auth0.start_login()["user_code"])
        tenant.advance(10)
        hurried.sleeps.append(-30)
        assert auth0.finish_login(timeout=0.1).user["sub"] == "auth0|alice"

    def test_no_poll_comes_sooner_after_another_one_than_it_may(self, auth0, tenant, hurried):
        auth0.start_login()
        hurried.sleep(10)
        for _ in range(2):
            with pytest.raises(NetworkError, match="nobody has approved"):
                auth0.finish_login(timeout=0.1)
        assert tenant.count("device_code") == 1

    def test_a_start_that_meets_an_overload_is_tried_again(self, auth0, tenant, hurried):
        tenant.break_next("/oauth/device/code", status=503)
        assert auth0.start_login()["user_code"]

    def test_the_time_that_its_start_took_is_part_of_its_life(self, auth0, tenant, hurried):
        def delay(reply):
            hurried.sleep(20)
            return reply

        tenant.break_next("/oauth/device/code", change=delay)
        before = hurried.time()
        event = auth0.start_login()
        assert event["expires_at"] < before + event["expires_in"] + 10

    @pytest.mark.parametrize(("asked", "kept"), [(0, 1), (7, 7), (100_000, 300)])
    def test_the_interval_between_two_polls_has_limits(self, auth0, tenant, asked, kept):
        tenant.break_next("/oauth/device/code", change=lambda reply: {**reply, "interval": asked})
        assert auth0.start_login()["interval"] == kept

    def test_is_kept_until_it_is_approved(self, auth0, tenant, hurried):
        event = auth0.start_login(scope="read:things")
        assert event["user_code"] in event["message"]
        assert "login --resume" in event["next"]
        with pytest.raises(NetworkError, match="nobody has approved"):
            auth0.finish_login(timeout=0.1)
        assert auth0.session() is None
        tenant.approve(event["user_code"])
        assert auth0.finish_login(timeout=20).user["name"] == "Alice Liddell"
        assert auth0.get_token(scope="read:things") in tenant.access_tokens
        with pytest.raises(LoginRequired, match="no login is pending"):
            auth0.finish_login(timeout=0.1)

    def test_its_files_are_private(self, auth0, tenant, cli):
        auth0.start_login()
        (path,) = cli.cache.glob("*.state")
        assert os.name != "posix" or stat.S_IMODE(path.stat().st_mode) == 0o600
        assert cli.status() == []

    def test_a_second_start_replaces_the_first(self, auth0, tenant, hurried):
        first, second = auth0.start_login(), auth0.start_login()
        tenant.approve(second["user_code"])
        assert first["user_code"] != second["user_code"]
        assert auth0.finish_login(timeout=20).user

    def test_its_start_leaves_the_file_that_a_refresh_writes(self, logged_in, auth0, hurried):
        writer = FileCache(logged_in.cache)
        temporary = logged_in.session_file.with_suffix(".tmp-1-1")
        with writer.lock(temporary.stem, 5):
            temporary.touch(0o600)
            with pytest.raises(NetworkError, match="lock"):
                auth0.start_login()
            assert temporary.exists()
        assert auth0.start_login()["user_code"]

    def test_a_disk_that_is_full_by_now_uses_up_no_approval(
        self, auth0, tenant, hurried, monkeypatch
    ):
        def fail(_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        tenant.approve(auth0.start_login()["user_code"])
        with monkeypatch.context() as patch:
            patch.setattr(auth0_cli, "_flush", fail)
            with pytest.raises(CacheError, match="No space left"):
                auth0.finish_login(timeout=20)
        assert not tenant.count("device_code")
        assert auth0.finish_login(timeout=20).user["name"] == "Alice Liddell"

    def test_two_that_finish_it_make_one_session_and_no_slow_down(
        self, auth0, tenant, cli, watchful
    ):
        event = auth0.start_login()
        with ThreadPoolExecutor() as pool:
            finish = client(tenant, cli.cache).finish_login
            calls = [pool.submit(finish, timeout=30) for _ in range(2)]
            self.pass_interval(cli, tenant)
            tenant.wait_for(lambda: tenant.count("device_code"))
            tenant.approve(event["user_code"])
            self.pass_interval(cli, tenant)
        assert [call.result().user["sub"] for call in calls] == ["auth0|alice"] * 2
        assert len(tenant.sessions) == 1
        errors = [getattr(request, "error", None) for request in tenant.requests]
        assert "slow_down" not in errors
        assert tenant.count("device_code") == 2

    def test_a_denial_ends_it(self, auth0, tenant, hurried):
        event = auth0.start_login()
        tenant.deny(event["user_code"])
        with pytest.raises(auth0_cli.LoginFailed):
            auth0.finish_login(timeout=20)
        with pytest.raises(LoginRequired):
            auth0.finish_login(timeout=0.1)

    def test_one_denied_elsewhere_is_not_taken_for_the_session_before_it(
        self, logged_in, tenant, hurried
    ):
        auth0 = client(tenant, logged_in.cache)
        event = auth0.start_login()

        def deny():
            tenant.deny(event["user_code"])
            with pytest.raises(auth0_cli.LoginFailed):
                client(tenant, logged_in.cache).finish_login(timeout=20)

        hurried.then[1] = deny
        with pytest.raises(LoginRequired, match="no login is pending"):
            auth0.finish_login(timeout=20)
        assert auth0.session().user["sub"] == "auth0|alice"

    def test_one_with_a_wrong_id_token_is_not_pending_any_more(self, auth0, tenant, hurried):
        tenant.approve(auth0.start_login()["user_code"])
        forge(tenant, lambda claims: jwt(changed(claims, "iss", "https://elsewhere.test/")))
        with pytest.raises(InvalidToken):
            auth0.finish_login(timeout=20)
        with pytest.raises(LoginRequired, match="no login is pending"):
            auth0.finish_login(timeout=20)
        assert auth0.session() is None

    def test_a_logout_drops_it(self, auth0, tenant):
        event = auth0.start_login()
        auth0.logout()
        tenant.approve(event["user_code"])
        with pytest.raises(LoginRequired):
            auth0.finish_login(timeout=0.1)
        assert auth0.session() is None

    def test_an_agent_drives_it_with_commands(self, cli, tenant):
        cli.env["CI"] = "true"
        event = json.loads(cli.run("login", "--no-wait").out)
        assert event["event"] == "device_code"
        assert event["interval"] == 5
        assert time.time() < event["expires_at"] <= time.time() + event["expires_in"]
        resume = ["login", "--resume", "--timeout"]
        assert "login --resume" in event["next"]
        waiting = cli.run(*resume, "0.1", "--json", exit=5)
        error = json.loads(waiting.out)
        assert (error["event"], error["error"]) == ("error", "authorization_pending")
        assert error["retry_after"] == 5
        tenant.approve(event["user_code"])
        self.pass_interval(cli, tenant)
        done = json.loads(cli.run(*resume, "20", "--json").out)
        assert (done["event"], done["user"]["name"]) == ("logged_in", "Alice Liddell")
        assert cli.token() in tenant.access_tokens
        assert "no login is pending" in cli.run(*resume, "1", exit=3).err

    def test_it_is_found_without_the_name_of_the_application(self, cli, tenant):
        event = json.loads(cli.run("login", "--no-wait").out)
        tenant.approve(event["user_code"])
        self.pass_interval(cli, tenant)
        nameless = {"AUTH0_DOMAIN": None, "AUTH0_CLIENT_ID": None}
        cli.run("login", "--resume", env=nameless)
        assert cli.status()[0]["user"]["name"] == "Alice Liddell"

    def test_it_is_found_beside_the_session_of_another_application(self, cli, tenant):
        nameless = {"AUTH0_DOMAIN": None, "AUTH0_CLIENT_ID": None}
        log_in(Auth0(tenant.domain, "practice-other", cache=cli.cache), tenant)
        event = json.loads(cli.run("login", "--no-wait").out)
        tenant.approve(event["user_code"])
        self.pass_interval(cli, tenant)
        cli.run("login", "--resume", env=nameless)
        assert [session["client_id"] for session in cli.status()] == ["practice-native"]

    def test_it_is_found_beside_a_profile_whose_name_ends_alike(self, cli, tenant):
        log_in(client(tenant, cli.cache, profile="spending"), tenant)
        cli.run("login", "--no-wait", "--profile", "work")
        nameless = {"AUTH0_DOMAIN": None, "AUTH0_CLIENT_ID": None}
        result = cli.run("login", "--resume", "--timeout", "0.1", env=nameless, exit=5)
        assert "--profile work" in result.err

    def test_a_flow_that_can_not_be_split_is_exit_2(self, cli, tenant):
        assert "--no-wait" in cli.run("login", "--no-wait", "--flow", "browser", exit=2).err
        assert tenant.requests == []

    @pytest.mark.parametrize("damage", [{"device_code": 7}, {"wanted": {}}, {"wanted": None}])
    def test_a_damaged_one_is_none(self, auth0, cli, tenant, damage):
        tenant.approve(auth0.start_login()["user_code"])
        (path,) = cli.cache.glob("*.state")
        path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
        with pytest.raises(LoginRequired):
            auth0.finish_login(timeout=20)


# ---- Stories: Client credentials -----------------------------------------------------------------


class TestClientCredentials:
    @pytest.fixture
    def machine(self, cli, tenant):
        client = tenant.clients["practice-machine"]
        cli.env.update(AUTH0_CLIENT_ID=client.client_id, AUTH0_CLIENT_SECRET=client.client_secret)
        return cli

    def test_token_is_fetched_without_login_and_kept_until_it_expires(self, machine, tenant):
        first = machine.token()
        assert machine.token() == first
        assert tenant.count("client_credentials") == 1
        machine.expire()
        assert machine.token() != first
        assert tenant.count("client_credentials") == 2

    @pytest.mark.parametrize(
        ("name", "begin", "end"),
        [
            ("secret", "", ""),
            ("secret", "\ufeff", "\r\n"),
            ("secret", "\r\n\t ", " \n\n"),
            ("-", "", "\n"),
            ("-", " ", "\t\r\n"),
        ],
    )
    def test_secret_comes_from_a_file_or_stdin(self, machine, tmp_path, name, begin, end):
        secret = begin + machine.env.pop("AUTH0_CLIENT_SECRET") + end
        path = tmp_path / name
        path.write_bytes(secret.encode())
        machine.run(
            "token", "--client-secret-file", "-" if name == "-" else str(path), stdin=secret
        )

    @pytest.mark.parametrize(
        ("env", "words"),
        [
            ({"AUTH0_CLIENT_SECRET": "a-wrong-secret"}, "Unauthorized"),
            ({"AUTH0_AUDIENCE": OTHER_API}, "client-grant"),
            ({"AUTH0_AUDIENCE": None}, "audience"),
            ({"AUTH0_CLIENT_ID": "practice-native"}, "client_credentials"),
        ],
    )
    def test_refusal_is_exit_4_with_the_reason(self, machine, env, words):
        result = machine.run("token", env=env, exit=4)
        assert words in result.err
        assert result.out == ""

    def test_there_is_no_id_token_and_none_is_asked_for(self, machine, tenant):
        machine.token()
        for _ in range(2):
            assert "no valid ID token" in machine.run("token", "--id-token", exit=3).err
        assert tenant.count("client_credentials") == 1

    @pytest.mark.parametrize("scope", ["read:things offline_access", "openid offline_access"])
    def test_a_machine_does_not_take_the_place_of_a_user(self, cli, tenant, scope):
        web = tenant.clients["practice-web"]
        web.grants.add("client_credentials")
        web.client_grants.append(API)
        cli.env.update(AUTH0_CLIENT_ID=web.client_id, AUTH0_CLIENT_SECRET=web.client_secret)
        cli.login("--scope", scope)
        assert cli.status()[0]["refreshable"]
        tenant.revoke_sessions("alice")
        cli.expire()
        for _ in range(2):
            cli.run("token", exit=3)
        assert tenant.count("client_credentials") == 0

    def test_login_needs_the_secret_only(self, machine):
        assert event_of(machine.run("login", "--json"))["user"] is None
        (session,) = machine.status()
        assert (session["user"], session["refreshable"]) == (None, False)
        del machine.env["AUTH0_CLIENT_SECRET"]
        machine.run("login", "--flow", "client-credentials", exit=2)

    def test_token_comes_even_where_nothing_can_be_saved(self, machine):
        file = machine.home / "file"
        file.touch()
        result = machine.run("token", env={"AUTH0_CLI_CACHE": str(file / "sessions")})
        assert result.out.strip() in machine.tenant.access_tokens
        assert "warning: " in result.err

    @pytest.mark.parametrize("assertion", [None, "", b"a.b.c", "a b", "a\nb", 7], ids=repr)
    def test_an_assertion_that_is_no_token_is_named(self, tenant, assertion):
        auth0 = Auth0(
            tenant.domain,
            "practice-machine",
            client_assertion=lambda: assertion,
            audience=API,
            cache=MemoryCache(),
        )
        with pytest.raises(ConfigError, match="client_assertion"):
            auth0.get_token()
        assert tenant.requests == []

    def test_an_assertion_is_made_anew_for_each_try(self, tenant, hurried):
        def assertion():
            return tenant.sign({"iss": "practice-machine", "jti": secrets.token_hex(8)})

        tenant.clients["practice-machine"].assertion = True
        tenant.break_next("/oauth/token", close="after")
        settings = {"client_assertion": assertion, "audience": API, "cache": MemoryCache()}
        auth0 = Auth0(tenant.domain, "practice-machine", **settings)
        assert auth0.get_token() in tenant.access_tokens
        assert len(set(tenant.assertions)) == 2

    def test_an_empty_secret_is_named(self, machine):
        env = {"AUTH0_CLIENT_SECRET": "  "}
        assert "AUTH0_CLIENT_SECRET is set but empty" in machine.run("token", env=env, exit=3).err
        login = machine.run("login", "--flow", "client-credentials", env=env, exit=2)
        assert "AUTH0_CLIENT_SECRET is set, but empty" in login.err

    def test_white_space_around_a_variable_is_not_part_of_it(self, machine, tenant):
        for name in ("DOMAIN", "CLIENT_ID", "CLIENT_SECRET", "AUDIENCE", "PROFILE"):
            machine.env[f"AUTH0_{name}"] = f" {machine.env.get(f'AUTH0_{name}', 'default')}\r\n"
        machine.env.update(AUTH0_SCOPE="\tread:things\n", AUTH0_ORGANIZATION="org_1 ")
        assert machine.token() in tenant.access_tokens
        sent = tenant.requests[-1].params
        assert all(value == value.strip() for value in sent.values())
        assert (sent["scope"], sent["organization"]) == ("read:things", "org_1")
        assert machine.status()[0]["profile"] == "default"

    def test_white_space_around_an_argument_is_not_part_of_it(self, tenant):
        settings = {"client_secret": f" {MACHINE_SECRET}\n", "audience": f"{API}\n"}
        auth0 = Auth0(f" {tenant.domain}\n", "practice-machine\n", cache=MemoryCache(), **settings)
        assert auth0.get_token() in tenant.access_tokens

    def test_auto_does_not_put_the_machine_in_the_place_of_a_user(
        self, tenant, cli, desk, monkeypatch
    ):
        web = tenant.clients["practice-web"]
        web.grants.add("client_credentials")
        web.client_grants.append(API)
        settings = {"client_secret": web.client_secret, "audience": API, "cache": cli.cache}
        auth0 = Auth0(tenant.domain, web.client_id, **settings)
        log_in(auth0, tenant, flow="browser")
        assert auth0.login().user["sub"] == "auth0|alice"
        assert auth0_cli.main(["login"], defaults=auth0) == 0
        assert auth0.session().user["sub"] == "auth0|alice"
        assert tenant.count("client_credentials") == 0
        assert auth0.login(flow="client-credentials").user is None  # which says what it wants

    def test_other_grants_take_numbers(self, tenant):
        reply = {"error": "invalid_grant", "error_description": "wrong otp 123456"}
        tenant.break_next("/oauth/token", status=403, body=reply)
        with pytest.raises(OAuthError, match=r"wrong otp \*\*\*"):
            machine(tenant.domain).grant("http://auth0.com/oauth/grant-type/mfa-otp", otp=123456)
        assert tenant.requests[-1].params["otp"] == "123456"


# ---- Stories: Password flow ----------------------------------------------------------------------


class TestPasswordFlow:
    REALM = "Username-Password-Authentication"

    @pytest.mark.parametrize(
        ("flags", "grant_type"), [([], "password"), (["--realm", REALM], "password-realm")]
    )
    def test_takes_the_password_from_stdin_and_warns(self, cli, tenant, flags, grant_type):
        arguments = ["login", "--flow", "password", "--username", "alice", *flags]
        result = cli.run(*arguments, stdin=" wonderland-1 \r\nnot this line\n")
        assert "warning: the password flow is discouraged" in result.err
        assert tenant.count(grant_type) == 1
        assert cli.status()[0]["user"]["name"] == "Alice Liddell"

    @pytest.mark.parametrize(
        ("setting", "password", "error"),
        [
            ({}, "a-wrong-password", "invalid_grant"),
            ({"mfa": True}, "wonderland-1", "mfa_required"),
            ({"blocked": True}, "wonderland-1", "unauthorized"),
        ],
    )
    def test_refusal_is_exit_4(self, cli, tenant, setting, password, error):
        vars(tenant.users["alice"]).update(setting)
        arguments = ["login", "--flow", "password", "--username", "alice", "--json"]
        assert event_of(cli.run(*arguments, stdin=password, exit=4))["error"] == error
        assert cli.status() == []

    def test_is_never_taken_from_the_command_line_or_without_a_name(self, cli):
        cli.run("login", "--flow", "password", "--password", "not-his-own", exit=2)
        cli.run("login", "--flow", "password", stdin="wonderland-1\n", exit=2)

    def test_a_password_is_never_sent_twice(self, auth0, tenant, hurried, capsys):
        tenant.break_all("/oauth/token", status=429)
        with pytest.raises(NetworkError):
            auth0.login(flow="password", username="alice", password="wonderland-1")
        assert tenant.count("password") == 1


# ---- Stories: Tokens of a session ----------------------------------------------------------------


class TestTokensOfASession:
    def test_a_valid_one_needs_no_network(self, logged_in, tenant):
        tenant.close()
        assert logged_in.token() in tenant.access_tokens

    @pytest.mark.parametrize("rotation", [True, False])
    def test_an_expired_one_is_refreshed_again_and_again(self, logged_in, tenant, rotation):
        tenant.rotation = rotation
        seen = {logged_in.token()}
        for _ in range(2):
            logged_in.expire()
            seen.add(logged_in.token())
        assert len(seen) == 3
        assert tenant.count("refresh_token") == 2

    @pytest.mark.parametrize(
        ("seconds", "flags", "count"),
        [(40, [], 1), (40, ["--min-ttl", "20"], 0), (900, ["--min-ttl", "1000"], 1)],
    )
    def test_is_refreshed_when_less_than_min_ttl_is_left(
        self, logged_in, tenant, seconds, flags, count
    ):
        logged_in.edit(expire_in(seconds))
        logged_in.token(*flags)
        assert tenant.count("refresh_token") == count

    def test_a_short_lived_one_is_used_while_it_is_valid(self, cli, tenant):
        tenant.access_ttl = 50
        cli.login()
        assert cli.token() == cli.token()
        assert tenant.count("refresh_token") == 0

    @pytest.mark.parametrize("given", ["flag", "environment"])
    def test_one_call_with_a_scope_does_not_narrow_the_others(self, cli, tenant, given):
        client = tenant.clients["practice-machine"]
        cli.env.update(AUTH0_CLIENT_ID=client.client_id, AUTH0_CLIENT_SECRET=client.client_secret)
        narrow = {"args": ["--scope", "read:things"]} if given == "flag" else {}
        narrow["env"] = {} if given == "flag" else {"AUTH0_SCOPE": "read:things"}

        def run(args=(), **options):
            return json.loads(cli.run("token", "--json", *args, **options).out)

        before = run()

        assert run(**narrow)["access_token"] == run(**narrow)["access_token"]
        assert run()["access_token"] == before["access_token"]
        for path in cli.cache.glob("*.json"):
            record = json.loads(path.read_text())
            for token in record["tokens"]:
                token.update(obtained_at=1, expires_at=2)
            path.write_text(json.dumps(record))
        assert run()["scope"] == before["scope"]

    @pytest.mark.parametrize("given", ["flag", "environment"])
    def test_a_scope_that_the_login_did_not_ask_for_needs_a_login(self, logged_in, tenant, given):
        args, env = (["--scope", "admin:all"], {}) if given == "flag" else ([], {})
        env = {} if args else {"AUTH0_SCOPE": "admin:all"}
        before = logged_in.token()
        result = logged_in.run("token", "--force-refresh", *args, env=env, exit=3)
        assert f"login --scope '{auth0_cli.DEFAULT_SCOPE} admin:all'" in result.err
        assert tenant.count("refresh_token") == 0
        assert logged_in.token() == before

    def test_a_scope_that_was_not_granted_is_exit_4_without_a_refresh(self, cli, tenant):
        cli.login("--scope", f"{auth0_cli.DEFAULT_SCOPE} read:things no:such")
        assert cli.token("--scope", "read:things") == cli.token()
        for _ in range(2):
            result = cli.run("token", "--scope", "read:things no:such", exit=4)
            assert "did not grant the scope no:such" in result.err
            assert "permission" in result.err
        assert tenant.count("refresh_token") == 0

    def test_a_call_that_may_log_in_asks_for_the_scope(self, auth0, tenant, desk):
        log_in(auth0, tenant)
        token = auth0.get_token(scope="read:things", interactive=True)
        assert "read:things" in tenant.access_tokens[token][1]
        assert auth0.session().refreshable
        assert auth0.get_token(scope="read:things") == auth0.get_token()

    def test_force_refresh_gets_another(self, logged_in):
        assert logged_in.token() != logged_in.token("--force-refresh")

    def test_network_failure_serves_the_old_one_while_it_is_valid(
        self, logged_in, tenant, call, hurried
    ):
        tenant.leeway = 60
        before = logged_in.token()
        logged_in.edit(expire_in(40))
        tenant.break_all("/oauth/token", close="after")
        assert call("token").out.strip() == before
        logged_in.expire()
        assert "try again" in call("token", code=5).err
        tenant.mend()
        assert logged_in.token() != before

    def test_revoked_session_is_exit_3_with_the_next_step(self, logged_in, tenant):
        tenant.revoke_sessions("alice")
        logged_in.expire()
        for _ in range(2):
            result = logged_in.run("token", exit=3)
            assert "auth0_cli login --domain" in result.err
            assert result.out == ""
        assert tenant.count("refresh_token") == 1

    @pytest.mark.parametrize(("error", "code"), [("login_required", 3), ("invalid_request", 4)])
    def test_other_refusals_end_no_session(self, logged_in, tenant, error, code):
        logged_in.expire()
        tenant.break_next("/oauth/token", status=403, body={"error": error})
        assert error in logged_in.run("token", exit=code).err
        assert logged_in.token() in tenant.access_tokens

    def test_a_newer_refresh_token_is_adopted_after_invalid_grant(self, logged_in, tenant, auth0):
        session = logged_in.session_file
        refused = session.read_bytes()
        log_in(auth0, tenant, "bob")
        newer = session.read_bytes()
        session.write_bytes(refused)
        tenant.revoke_sessions("alice")
        tenant.hold()
        running = logged_in.start("token", "--force-refresh")
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        session.write_bytes(newer)
        tenant.release()
        access = tenant.access_tokens[running.finish().out.strip()]
        assert access[0].sub == "auth0|bob"

    def test_white_space_around_a_text_of_a_call_is_no_part_of_it(self, auth0, tenant):
        log_in(auth0, tenant)
        token = auth0.get_token()
        assert auth0.get_token(audience=f" {API}\n", scope=" ") == token
        assert tenant.count("refresh_token") == 0
        other = log_in(auth0, tenant, audience=f"{OTHER_API} ", scope="\topenid ")
        assert [token["audience"] for token in other.tokens] == [OTHER_API]

    @pytest.mark.parametrize("name", ["audience", "scope"])
    def test_a_login_in_two_steps_refuses_what_is_no_text(self, auth0, tenant, name):
        for value in (7, b"openid", "two\nlines"):
            with pytest.raises(ConfigError, match=f"{name} is not a printable text"):
                auth0.start_login(**{name: value})
        assert tenant.requests == []

    def test_another_api_is_not_asked_for_the_scope_of_the_login(self, tenant):
        tenant.mrrt = {OTHER_API: ["read:other"]}
        auth0 = client(tenant, MemoryCache(), scope="openid offline_access")
        log_in(auth0, tenant)
        assert auth0.get_token(audience=OTHER_API) in tenant.access_tokens
        assert tenant.requests[-1].params["audience"] == OTHER_API
        assert "scope" not in tenant.requests[-1].params

    def test_the_life_of_a_renewed_one_counts_from_before_it_was_asked_for(
        self, auth0, tenant, hurried
    ):
        def delay(reply):
            hurried.sleep(20)
            return {**reply, "expires_in": 3600}

        log_in(auth0, tenant)
        tenant.break_next("/oauth/token", change=delay)
        before = hurried.time()
        auth0.get_token(force_refresh=True)
        (token,) = auth0.session().tokens
        assert token["expires_at"] < before + 3600 + 10

    def test_a_scope_that_the_server_refuses_needs_a_login(self, logged_in, auth0, tenant):
        body = {"error": "invalid_scope", "error_description": "not this one"}
        tenant.break_next("/oauth/token", status=403, body=body)
        with pytest.raises(LoginRequired, match="login --scope "):
            auth0.get_token(scope="openid", force_refresh=True)

    def test_the_scope_that_an_answer_leaves_out_is_the_one_asked_for(self, auth0, tenant):
        change = {"change": lambda reply: overridden(reply, {"scope": None})}
        tenant.break_next("/oauth/token", **change)
        (token,) = log_in(auth0, tenant, scope="read:things").tokens
        assert "read:things" in token["scope"].split()
        assert auth0.get_token(scope="read:things") in tenant.access_tokens
        assert tenant.count("refresh_token") == 0

    @pytest.mark.parametrize("place", [0, 1])
    def test_of_two_tokens_that_serve_the_one_that_lives_longer_is_taken(self, logged_in, place):
        def change(record):
            (token,) = record["tokens"]
            longer = {"access_token": "longer", "expires_at": token["expires_at"] + 600}
            record["tokens"].insert(place, {**token, **longer})

        logged_in.edit(change)
        assert logged_in.token() == "longer"

    def test_a_call_without_a_scope_does_not_get_the_token_of_one_with_a_scope(
        self, logged_in, auth0, tenant
    ):
        tenant.mrrt = {OTHER_API: ["read:other"]}
        narrow = auth0.get_token(audience=OTHER_API, scope="read:other")
        whole = auth0.get_token(audience=OTHER_API)
        assert tenant.access_tokens[narrow][1] == ["read:other"]
        assert "openid" in tenant.access_tokens[whole][1]

    def test_a_rotated_refresh_token_is_saved_before_keys_are_requested(self, logged_in, tenant):
        def stored(reply=None):
            seen.append(json.loads(logged_in.session_file.read_text())["refresh_token"])
            return reply

        seen = []
        stored()
        for _ in range(2):  # the stored keys hold the next one, too
            tenant.rotate_keys()
        tenant.break_next("/.well-known/jwks.json", change=stored)
        logged_in.run("token", "--force-refresh")
        stored()
        before, during, after = seen
        assert before != during == after

    def test_one_session_serves_several_apis(self, logged_in, tenant):
        tenant.mrrt = {OTHER_API: ["read:other"]}
        other = logged_in.token("--audience", OTHER_API)
        assert "read:other" in tenant.access_tokens[other][1]
        assert logged_in.token("--audience", OTHER_API) == other != logged_in.token()
        assert tenant.count("refresh_token") == 1
        assert [token["audience"] for token in logged_in.status()[0]["tokens"]] == [API, OTHER_API]

    def test_a_token_for_the_wrong_api_is_not_handed_out(self, logged_in):
        result = logged_in.run("token", "--audience", OTHER_API, exit=3)
        assert OTHER_API in result.err
        assert logged_in.token("--force-refresh") == logged_in.token()

    def test_keys_are_fetched_again_only_when_an_unknown_one_signs(self, logged_in, tenant, auth0):
        for rotations, count in ((0, 1), (1, 1), (1, 2)):  # the stored keys hold the next one, too
            for _ in range(rotations):
                tenant.rotate_keys()
            auth0.get_token(force_refresh=True)
            assert tenant.count("/.well-known/jwks.json") == count

    def test_login_on_demand_shows_people_a_code_where_no_browser_is_seen(
        self, tenant, call, hurried, monkeypatch
    ):
        def approve():
            codes.extend(device.user_code for device in tenant.devices.values())
            tenant.approve(codes[0])

        codes = []
        hurried.then[1] = approve
        assert "login --domain" in call("token", code=3).err
        monkeypatch.setenv("SSH_TTY", "/dev/pts/0")
        result = call("token", "--login")
        assert result.out.strip() in tenant.access_tokens
        for line in ("activate", f"activate?user_code={codes[0]}"):
            assert f"\n{tenant.issuer}{line}\n" in result.err
        assert f"enter the code  {codes[0]}\n" in result.err

    def test_one_that_ends_at_once_leaves_time_to_ask_for_the_next(self, logged_in):
        before = logged_in.token()
        logged_in.edit(expire_in(0.9))
        assert logged_in.token() != before

    def test_a_short_lived_one_is_not_used_once_it_has_expired(self, logged_in, call):
        before = call("token").out
        logged_in.edit(
            lambda record: record["tokens"][0].update(
                obtained_at=time.time() - 60, expires_at=time.time() - 10
            )
        )
        assert call("token").out != before

    def test_a_token_of_no_organization_does_not_serve_one(self, tenant):
        settings = {"client_secret": MACHINE_SECRET, "audience": API, "cache": MemoryCache()}
        Auth0(tenant.domain, "practice-machine", **settings).get_token()
        with contextlib.suppress(OAuthError):
            Auth0(tenant.domain, "practice-machine", organization="org_1", **settings).get_token()
        assert tenant.requests[-1].params["organization"] == "org_1"

    def test_an_expired_one_is_not_kept_beside_the_new_one(self, logged_in, tenant, call):
        tenant.mrrt = {OTHER_API: ["read:other"]}
        call("token", "--audience", OTHER_API)
        logged_in.expire()
        call("token")
        record = json.loads(logged_in.session_file.read_text())
        assert [token["audience"] for token in record["tokens"]] == [API]

    def test_while_the_old_one_is_valid_a_lock_is_not_waited_for_long(self, tenant, hurried):
        class Cache(DictCache):
            def lock(self, key, timeout):
                timeouts.append(timeout)
                return super().lock(key, timeout)

        timeouts, cache = [], Cache()
        auth0 = client(tenant, cache)
        tenant.access_ttl = 5000
        log_in(auth0, tenant)
        timeouts.clear()
        hurried.sleeps.append(100)
        auth0.get_token(min_ttl=4950)
        auth0.get_token(force_refresh=True)
        assert timeouts == [4, 60]

    def test_a_network_failure_does_not_serve_what_was_logged_out_meanwhile(self, tenant, hurried):
        cache = DictCache()
        auth0 = client(tenant, cache, trace=lambda _: cache.data.clear())
        tenant.access_ttl = 5000
        log_in(client(tenant, cache), tenant)
        hurried.sleeps.append(100)
        tenant.break_all("/oauth/token", close="after")
        with pytest.raises(NetworkError):
            auth0.get_token(min_ttl=4950)

    def test_a_user_s_session_is_not_renewed_as_the_machine(self, tenant):
        secret = tenant.clients["practice-web"].client_secret
        settings = {"client_secret": secret, "scope": "openid", "cache": MemoryCache()}
        auth0 = Auth0(tenant.domain, "practice-web", **settings)
        log_in(auth0, tenant, flow="browser")
        with pytest.raises(LoginRequired, match="no refresh token"):
            auth0.get_token(force_refresh=True)
        assert tenant.count("client_credentials") == 0

    def test_a_refused_refresh_leaves_the_tokens_that_are_valid(
        self, logged_in, tenant, call, auth0
    ):
        token = call("token").out
        tenant.revoke_sessions("alice")
        call("token", "--force-refresh", code=3)
        assert call("token").out == token
        assert auth0.session().user["sub"] == "auth0|alice"
        assert not auth0.session().refreshable

    def test_a_refresh_overwrites_no_session_that_was_put_in_its_place(
        self, logged_in, tenant, call, auth0
    ):
        def replace(reply):
            session.write_bytes(newer)
            return reply

        session = logged_in.session_file
        before = session.read_bytes()
        log_in(auth0, tenant, "bob")
        newer = session.read_bytes()
        session.write_bytes(before)
        tenant.break_next("/oauth/token", change=replace)
        call("token", "--force-refresh")
        assert session.read_bytes() == newer

    def test_keys_are_fetched_again_after_the_clock_was_set_back(self, logged_in, tenant, call):
        logged_in.edit(lambda record: record.update(jwks=[], jwks_refetched_at=time.time() + 9999))
        assert call("token", "--force-refresh").out.strip() in tenant.access_tokens

    def test_keys_that_could_not_be_fetched_are_asked_for_again(
        self, logged_in, tenant, call, hurried
    ):
        logged_in.edit(lambda record: record.update(jwks=[]))
        tenant.break_all("/.well-known/jwks.json", status=503)
        call("token", "--force-refresh", code=5)
        tenant.mend()
        assert call("token", "--force-refresh").out.strip() in tenant.access_tokens

    def test_odd_keys_of_a_file_are_no_keys(self, logged_in, tenant, call):
        logged_in.edit(lambda record: record.update(jwks=[7, None, {"kid": 1}, {}]))
        assert call("token", "--force-refresh").out.strip() in tenant.access_tokens
        assert tenant.count("/.well-known/jwks.json") == 2

    @table(
        "change",
        {
            "an encrypted one": lambda reply: {**reply, "access_token": "a.b.c.d.e"},
            "one whose response names it": lambda reply: {
                **reply,
                "access_token": "opaque",
                "resource": OTHER_API,
            },
        },
    )
    def test_a_token_for_a_second_api_need_not_be_readable(self, logged_in, tenant, change):
        tenant.mrrt = {OTHER_API: ["read:other"]}
        tenant.break_next("/oauth/token", change=change)
        other = logged_in.token("--audience", OTHER_API)
        assert other in ("a.b.c.d.e", "opaque")
        assert logged_in.token("--audience", OTHER_API) == other
        assert tenant.count("refresh_token") == 1

    @table(
        "change",
        {
            "four parts": {"access_token": "a.b.c.d"},
            "six parts": {"access_token": "a.b.c.d.e.f"},
            "of another resource": {"access_token": "opaque", "resource": API},
        },
    )
    def test_a_token_that_may_be_for_another_api_is_not_handed_out(
        self, logged_in, tenant, call, change
    ):
        tenant.mrrt = {OTHER_API: ["read:other"]}
        tenant.break_next("/oauth/token", change=lambda reply: {**reply, **change})
        by = Auth0(tenant.domain, "practice-native", audience=OTHER_API, cache=logged_in.cache)
        assert "multi-resource" in call("token", code=3, by=by).err
        assert logged_in.token("--force-refresh") in tenant.access_tokens

    @pytest.mark.parametrize(
        ("kind", "advice"),
        [("N_A", "not an access token for an API"), ("DPoP", "sender constraining")],
    )
    def test_a_token_that_is_no_bearer_token_is_named_with_advice(
        self, logged_in, tenant, call, kind, advice
    ):
        tenant.break_next("/oauth/token", change=lambda reply: {**reply, "token_type": kind})
        result = call("token", "--force-refresh", code=4)
        assert f"{kind}, not Bearer" in result.err
        assert advice in result.err
        assert call("token", "--force-refresh").out.strip() in tenant.access_tokens

    def test_a_third_party_application_is_told_which_scope_to_ask_for(self, cli, tenant):
        native = tenant.clients["practice-native"]
        tenant.clients["tpc_1"] = SimpleNamespace(**{**vars(native), "client_id": "tpc_1"})
        auth0 = Auth0(tenant.domain, "tpc_1", audience=API, cache=cli.cache)
        tenant.break_next("/oauth/token", change=lambda r: overridden(r, {"id_token": None}))
        with pytest.raises(InvalidToken, match=r'third-party .* --scope "offline_access') as caught:
            log_in(auth0, tenant)
        assert "openid" in str(caught.value)
        scope = "offline_access read:things"
        narrow = Auth0(tenant.domain, "tpc_1", audience=API, scope=scope, cache=cli.cache)
        assert log_in(narrow, tenant).user is None
        assert narrow.get_token(force_refresh=True) in tenant.access_tokens

    def test_a_refresh_that_hangs_costs_no_valid_token(self, logged_in, tenant, auth0, monkeypatch):
        token = auth0.get_token()
        auth0._recent.clear()
        logged_in.edit(expire_in(30))
        monkeypatch.setattr(auth0_cli, "FALLBACK_SECONDS", 0.3)
        tenant.break_next("/oauth/token", drip=1)
        assert auth0.get_token() == token
        assert tenant.count("refresh_token") == 1

    def test_a_lock_that_another_holds_for_long_costs_no_valid_token(
        self, logged_in, tenant, auth0, monkeypatch
    ):
        token = auth0.get_token()
        auth0._recent.clear()
        logged_in.edit(expire_in(30))
        monkeypatch.setattr(auth0_cli, "FALLBACK_SECONDS", 0.2)
        with FileCache(logged_in.cache).lock(logged_in.session_file.stem, 5):
            assert auth0.get_token() == token
        assert tenant.count("refresh_token") == 0

    @pytest.mark.parametrize("early", [0, 0.1])
    @pytest.mark.parametrize("who", ["user", "machine"])
    def test_a_busy_lock_of_a_cache_of_its_own_is_worth_another_try(
        self, tenant, hurried, who, early
    ):
        class LockError(Exception):
            """As that of a Redis lock, which gives up a little before its time."""

        class Cache(DictCache):
            busy = False

            @contextlib.contextmanager
            def lock(self, key, timeout):
                if self.busy:
                    hurried.sleep(timeout - early)
                    raise LockError
                yield

        cache = Cache()
        auth0 = machine(tenant.domain, cache) if who == "machine" else client(tenant, cache)
        if who == "user":
            log_in(auth0, tenant)
        token = auth0.get_token()
        auth0._recent.clear()
        (key,) = cache.data
        record = json.loads(cache.data[key])
        expire_in(30)(record)
        cache.data[key] = json.dumps(record).encode()
        cache.busy = True
        before = len(tenant.requests)
        assert auth0.get_token() == token
        expire_in(-5)(record)
        cache.data[key] = json.dumps(record).encode()
        auth0._recent.clear()
        with pytest.raises(NetworkError, match="lock of this session was busy"):
            auth0.get_token()
        assert len(tenant.requests) == before
        cache.busy = False
        assert auth0.get_token() in tenant.access_tokens

    def test_a_cache_that_is_down_costs_no_valid_token(self, tenant):
        cache = DictCache()
        auth0 = client(tenant, cache)
        log_in(auth0, tenant)
        (key,) = cache.data
        record = json.loads(cache.data[key])
        expire_in(30)(record)
        cache.data[key] = json.dumps(record).encode()
        cache.lock = cache.write = lambda *_: 1 / 0
        assert auth0.get_token() == record["tokens"][0]["access_token"]
        assert tenant.count("refresh_token") == 0

    def test_an_id_token_is_not_handed_out_once_it_has_expired(self, cli, tenant):
        tenant.id_ttl = 30
        cli.login()
        old = cli.token("--id-token", "--min-ttl", "0")
        assert cli.token("--id-token", "--min-ttl", "3600") == old
        assert tenant.count("refresh_token") == 0
        tenant.break_all("/oauth/token", change=lambda reply: {**reply, "id_token": None})
        assert cli.token("--id-token", "--min-ttl", "29") == old
        cli.edit(lambda record: record.update(id_token=tenant.sign({"exp": 1})))
        assert "no valid ID token" in cli.run("token", "--id-token", exit=3).err

    @pytest.mark.parametrize("claims", [None, {"exp": "9"}, {"exp": True}, {}], ids=str)
    def test_a_damaged_id_token_is_replaced(self, logged_in, tenant, call, claims):
        damaged = "x.y.z" if claims is None else tenant.sign(claims)
        logged_in.edit(lambda record: record.update(id_token=damaged))
        token = call("token", "--id-token").out.strip()
        assert claims_of(token)["sub"] == "auth0|alice"
        assert tenant.count("refresh_token") == 1

    def test_a_token_of_the_future_is_not_trusted(self, logged_in, tenant):
        old = logged_in.token()

        def change(record):
            record["tokens"][0].update(obtained_at=time.time() + 9999)

        logged_in.edit(change)
        assert logged_in.token() != old
        assert tenant.count("refresh_token") == 1


# ---- Stories: Login and logout -------------------------------------------------------------------


class TestStatusAndLogout:
    def test_status_says_who_where_and_until_when(self, logged_in, tenant):
        asked = len(tenant.requests)
        (session,) = logged_in.status()
        (token,) = session.pop("tokens")
        assert session == {
            "domain": tenant.domain,
            "client_id": "practice-native",
            "profile": "default",
            "user": {"sub": "auth0|alice", "name": "Alice Liddell", "email": "alice@example.test"},
            "refreshable": True,
        }
        assert abs(token.pop("expires_at") - token.pop("expires_in") - time.time()) < 60
        assert token == {"audience": API, "scope": "openid profile email offline_access"}
        text = logged_in.run("status").out
        assert all(part in text for part in ("Alice Liddell", tenant.domain, API))
        assert len(tenant.requests) == asked

    def test_status_of_nobody_is_exit_3(self, cli):
        assert cli.run("status", exit=3).out == ""
        assert cli.run("status", "--json", exit=3).out == "[]\n"

    def test_expired_tokens_stay_in_the_status(self, logged_in):
        logged_in.expire()
        assert logged_in.status()[0]["tokens"][0]["expires_in"] == 0

    @pytest.mark.parametrize(("flags", "revoked"), [([], 1), (["--local"], 0)])
    def test_logout_revokes_unless_it_is_local(self, logged_in, tenant, flags, revoked):
        assert logged_in.run("logout", *flags).out == ""
        assert tenant.count("/oauth/revoke") == revoked
        assert tenant.sessions[0].is_alive is not bool(revoked)
        assert list(logged_in.cache.glob("*.json")) == []
        assert "login --domain" in logged_in.run("token", exit=3).err

    def test_logout_without_network_deletes_and_says_what_is_left(
        self, logged_in, tenant, call, hurried
    ):
        tenant.close()
        result = call("logout", code=5)
        assert "not revoked" in result.err
        assert logged_in.status() == []

    def test_logout_of_all_ends_every_session(self, logged_in, tenant):
        logged_in.login("--profile", "work", user="bob")
        logged_in.run("logout", "--all")
        assert logged_in.status() == []
        assert not any(session.is_alive for session in tenant.sessions)

    def test_logout_of_all_shows_no_application_the_secret_of_another(self, logged_in, tenant):
        logged_in.login("--client-id", "practice-other")
        env = {"AUTH0_CLIENT_SECRET": MACHINE_SECRET, "AUTH0_CLIENT_ID": None}
        logged_in.run("logout", "--all", env=env)
        assert tenant.count("/oauth/revoke") == 2
        for request in tenant.requests:
            assert MACHINE_SECRET not in request.params.values()

    def test_logout_of_all_shows_no_application_the_secret_of_a_file(self, logged_in, tenant):
        logged_in.login("--client-id", "practice-other")
        secret = logged_in.home.parent / "secret"
        secret.write_text(MACHINE_SECRET)
        env = {"AUTH0_CLIENT_ID": None}
        logged_in.run("logout", "--all", "--client-secret-file", str(secret), env=env)
        assert tenant.count("/oauth/revoke") == 2
        for request in tenant.requests:
            assert "client_secret" not in request.params

    def test_logout_needs_no_lock(self, tenant):
        cache = DictCache()
        auth0 = client(tenant, cache)
        log_in(auth0, tenant)
        cache.lock = lambda *_: 1 / 0
        auth0.logout()
        assert (auth0.session(), tenant.count("/oauth/revoke")) == (None, 1)

    def test_logout_sends_no_secret_of_the_environment_for_what_the_store_names(self, cli, tenant):
        web = tenant.clients["practice-web"]
        cli.env.update(AUTH0_CLIENT_ID=web.client_id, AUTH0_CLIENT_SECRET=web.client_secret)
        cli.login()
        before = len(tenant.requests)
        cli.run("logout", "--all", env={"AUTH0_CLIENT_ID": None}, exit=None)
        assert cli.status() == []
        for request in tenant.requests[before:]:
            assert "client_secret" not in request.params

    def test_a_login_after_a_logout_needs_no_flags(self, logged_in, tenant):
        nameless = {name: None for name in logged_in.env if name.startswith("AUTH0_")}
        del nameless["AUTH0_CLI_CACHE"]
        logged_in.login("--scope", f"{auth0_cli.DEFAULT_SCOPE} read:things")
        logged_in.run("logout")
        assert "Nobody was logged in" in logged_in.run("logout").err
        assert "login" in logged_in.run("token", env=nameless, exit=3).err
        arguments = ["login", "--flow", "password", "--username", "alice"]
        logged_in.run(*arguments, env=nameless, stdin="wonderland-1\n")
        (session,) = logged_in.status()
        assert session["tokens"][0]["audience"] == API
        assert "read:things" in session["tokens"][0]["scope"]
        logged_in.run("logout")
        logged_in.run(*arguments, "--profile", "work", env=nameless, stdin="wonderland-1\n")
        assert [session["profile"] for session in logged_in.status()] == ["work"]

    def test_a_new_profile_after_two_logouts_asks_for_the_application(self, logged_in, tenant):
        log_in(Auth0(tenant.domain, "practice-other", cache=logged_in.cache), tenant)
        logged_in.run("logout")
        logged_in.run("logout", env={"AUTH0_CLIENT_ID": "practice-other"})
        nameless = {"AUTH0_DOMAIN": None, "AUTH0_CLIENT_ID": None}
        error = logged_in.run("login", "--profile", "work", env=nameless, exit=2).err
        assert "set AUTH0_DOMAIN" in error

    def test_a_login_forgets_what_was_logged_out_before(self, logged_in, tenant):
        nameless = {"AUTH0_DOMAIN": None, "AUTH0_CLIENT_ID": None}
        logged_in.run("logout")
        other = Auth0(tenant.domain, "practice-other", cache=logged_in.cache)
        log_in(other, tenant)
        logged_in.run("logout", env={"AUTH0_CLIENT_ID": "practice-other"})
        assert "practice-other" in logged_in.run("token", env=nameless, exit=3).err

    def test_logout_of_all_forgets_the_application(self, logged_in):
        nameless = {"AUTH0_DOMAIN": None, "AUTH0_CLIENT_ID": None}
        logged_in.run("logout")
        logged_in.run("logout", "--all")
        assert "AUTH0_DOMAIN" in logged_in.run("login", env=nameless, exit=2).err

    def test_logout_that_deletes_nothing_does_not_say_that_it_did(self, tenant, hurried):
        cache = DictCache()
        program = client(tenant, cache)
        log_in(program, tenant)
        cache.delete = lambda *_: 1 / 0
        tenant.break_all("/oauth/revoke", status=503)
        with pytest.raises(CacheError, match="ZeroDivisionError"):
            program.logout()

    def test_logout_deletes_whatever_becomes_of_the_revocation(self, logged_in, tenant):
        def sign():
            raise ValueError("the key service is down")

        program = client(tenant, logged_in.cache, client_assertion=sign)
        with pytest.raises(auth0_cli.Auth0Error, match=r"not revoked \(ValueError"):
            program.logout()
        assert logged_in.status() == []

    @needs_signals
    def test_logout_that_is_interrupted_can_be_repeated(self, logged_in, tenant):
        tenant.break_next("/oauth/revoke", status=503, drip=5)
        running = logged_in.start("logout")
        tenant.wait_for(lambda: tenant.count("/oauth/revoke"))
        running.process.send_signal(signal.SIGTERM)
        running.finish(143)
        logged_in.run("logout")
        assert logged_in.status() == []
        assert not any(session.is_alive for session in tenant.sessions)

    def test_logout_that_a_signal_handler_ends_can_be_repeated(
        self, logged_in, auth0, tenant, installed
    ):
        def expire(*_):
            raise TimeoutError

        installed(signal.SIGINT, expire)
        settings = {"client_assertion": lambda: signal.raise_signal(signal.SIGINT)}
        with pytest.raises(TimeoutError):
            client(tenant, logged_in.cache, **settings).logout()
        assert auth0.session()
        auth0.logout()
        assert auth0.session() is None
        assert not any(session.is_alive for session in tenant.sessions)

    def test_logout_of_nobody_is_fine(self, cli, tenant):
        cli.run("logout")
        cli.run("logout", "--all")
        assert tenant.requests == []

    def test_a_second_login_replaces_the_first(self, logged_in):
        logged_in.login(user="bob")
        (session,) = logged_in.status()
        assert session["user"]["name"] == "Bob Builder"

    def test_a_session_that_can_not_be_ended_stops_no_other(self, logged_in, call):
        first = logged_in.session_file
        logged_in.login("--profile", "work")
        first.write_text(first.read_text().replace('"version": 1', '"version": 2'))
        logged_in.run("logout", "--all", exit=1)
        assert list(logged_in.cache.glob("*.json")) == [first]

    def test_status_shows_the_api_of_a_default_audience(self, cli, tenant):
        cli.env["AUTH0_AUDIENCE"] = ""

        def default(audience):
            return lambda reply: {**reply, "access_token": jwt({"aud": audience})}

        for audience, shown in (
            ([API, f"{tenant.issuer}userinfo"], API),
            (API, API),
            (f"{tenant.issuer}userinfo", None),
        ):
            tenant.break_next("/oauth/token", change=default(audience))
            cli.login()
            assert cli.status()[0]["tokens"][0]["audience"] == shown
            assert json.loads(cli.run("token", "--json").out)["audience"] == shown
            assert ("/userinfo only" in cli.run("status").out) == (shown is None)
        cli.login()  # an opaque one
        assert "/userinfo only" in cli.run("status").out

    @table(
        "fault, code",
        {
            "words": ({"body": "OK"}, 0),
            "nothing": ({"body": b""}, 0),
            "a page": ({"body": "<html>OK</html>"}, 0),
            "bytes": ({"body": b"\xff\0"}, 0),
            "an error in a 200": ({"body": {"error": "unsupported_token_type"}}, 0),
            "204": ({"status": 204}, 0),
            "500": ({"status": 500}, 5),
            "closed before": ({"close": "before"}, 5),
            "closed after": ({"close": "after"}, 5),
            "429": ({"status": 429}, 5),
            "refused": ({"status": 400, "body": {"error": "invalid_request"}}, 4),
            "a page as refusal": ({"status": 403, "body": "<html>Blocked</html>"}, 5),
        },
    )
    def test_a_logout_deletes_whatever_the_revocation_brings(
        self, logged_in, tenant, call, hurried, fault, code
    ):
        tenant.break_all("/oauth/revoke", **fault)
        assert ("not revoked" in call("logout", code=code).err) == bool(code)
        assert list(logged_in.cache.glob("*.json")) == []


# ---- Stories: Auth0 ------------------------------------------------------------------------------


class TestAuth0:
    def test_session_is_none_until_somebody_logs_in(self, auth0, tenant):
        assert auth0.session() is None
        with pytest.raises(LoginRequired):
            auth0.get_token()
        session = log_in(auth0, tenant)
        assert session.user["name"] == auth0.session().user["name"] == "Alice Liddell"
        assert (session.domain, session.profile) == (tenant.domain, "default")
        assert session.refreshable
        assert session.tokens[0]["audience"] == API
        auth0.logout()
        assert auth0.session() is None
        with pytest.raises(LoginRequired):
            auth0.get_token()

    @pytest.mark.parametrize("flow", ["browser", "device"])
    def test_a_login_that_is_cancelled_ends_at_once(self, auth0, tenant, flow, watchful):
        tenant.device_interval = 60
        cancel, prompts = threading.Event(), queue.Queue()
        with ThreadPoolExecutor(1) as pool:
            options = {"show": prompts.put, "cancel": cancel, "timeout": 20}
            login = pool.submit(auth0.login, flow=flow, open_browser=False, **options)
            prompt = prompts.get(timeout=10)
            cancel.set()
            with pytest.raises(LoginFailed, match="cancelled") as caught:
                login.result(10)
        assert caught.value.error == "cancelled"
        assert auth0.session() is None
        assert tenant.count("/oauth/token") == 0
        if flow == "browser":
            port = urlsplit(prompt["redirect_uri"]).port
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=2)

    def test_what_says_whether_to_cancel_needs_no_more_than_is_set(self, auth0, watchful):
        answers = [False, True]
        cancel = SimpleNamespace(is_set=lambda: answers.pop(0))
        with pytest.raises(LoginFailed, match="cancelled"):
            auth0.login(flow="device", show=lambda _: None, cancel=cancel)
        assert answers == []

    def test_a_login_that_is_not_cancelled_goes_on(self, auth0, tenant, desk):
        assert auth0.login(flow="browser", show=lambda _: None, cancel=threading.Event())

    def test_memory_serves_no_call_that_asks_for_a_longer_life(self, logged_in):
        auth0 = client(logged_in.tenant, logged_in.cache)
        logged_in.edit(expire_in(30))
        token = auth0.get_token(min_ttl=0)
        assert auth0.get_token(min_ttl=60) != token

    def test_memory_serves_nobody_once_a_call_has_found_the_session_gone(self, logged_in, auth0):
        auth0.get_token()
        logged_in.run("logout")
        for force in (True, False):
            with pytest.raises(LoginRequired):
                auth0.get_token(force_refresh=force)

    def test_the_function_can_force_a_refresh(self, logged_in, tenant):
        names = {"domain": tenant.domain, "client_id": "practice-native"}
        settings = {**names, "cache": str(logged_in.cache)}
        token = get_token(**settings)
        assert get_token(force_refresh=True, **settings) != token

    def test_the_function_remembers_only_some_of_many_settings(self, tenant):
        for number in range(70):
            with pytest.raises(LoginRequired):
                get_token(domain=tenant.domain, client_id=f"client-{number}", cache=MemoryCache())
        assert 0 < len(auth0_cli._instances) < 70

    def test_a_grant_names_the_organization_of_the_login(self, tenant):
        cache = MemoryCache()
        settings = {"organization": "org_1"}
        log_in(client(tenant, cache, **settings), tenant, flow="browser")
        with pytest.raises(OAuthError):
            client(tenant, cache).grant("x")
        assert tenant.requests[-1].params["organization"] == "org_1"

    def test_a_stored_grant_of_a_machine_is_the_session_of_a_machine(self, tenant):
        program = machine(tenant.domain)
        assert program.grant("client_credentials", store=True) in tenant.access_tokens
        assert program.session().who() == "client practice-machine"

    def test_a_hint_names_the_api_of_the_call(self, auth0):
        with pytest.raises(LoginRequired, match=f"--audience {re.escape(OTHER_API)}"):
            auth0.get_token(audience=OTHER_API)

    def test_a_profile_that_is_not_stored_is_named(self, tenant):
        cache = MemoryCache()
        log_in(client(tenant, cache), tenant)
        with pytest.raises(ConfigError, match="no session has the profile 'work'"):
            Auth0(profile="work", cache=cache).get_token()

    def test_after_a_logout_the_function_gives_no_token_either(self, logged_in, auth0, tenant):
        names = {"domain": tenant.domain, "client_id": "practice-native"}
        settings = {**names, "cache": str(logged_in.cache)}
        assert get_token(**settings) in tenant.access_tokens
        auth0.logout()
        with pytest.raises(LoginRequired):
            get_token(**settings)

    def test_a_hint_names_no_flag_of_what_the_program_has_set(self, tenant, monkeypatch):
        settings = {"cache": MemoryCache(), "login_command": "mytool login"}
        program = Auth0(tenant.domain, "practice-native", **settings)
        with pytest.raises(LoginRequired, match=r"run mytool login$"):
            program.get_token()
        monkeypatch.setenv("AUTH0_PROFILE", "work")  # this the user has set
        with pytest.raises(LoginRequired, match=r"run mytool login --profile work$"):
            program.get_token()

    @pytest.mark.parametrize("flow", ["browser", "device"])
    def test_a_prompt_that_the_program_shows_is_nowhere_else(
        self, auth0, tenant, hurried, monkeypatch, flow
    ):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

            def fileno(self):
                return 2

        def show(prompt):
            if flow == "device":
                tenant.approve(prompt["user_code"])
            else:
                threading.Thread(target=tenant.login_as, args=(prompt["url"],)).start()

        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setattr(auth0_cli, "_find_browsers", lambda: [["a browser"]])
        monkeypatch.setattr(auth0_cli, "_open_browser", lambda url: True)
        tenant.break_next("/oauth/token", status=503)  # a prompt of ours would report it
        with contextlib.suppress(NetworkError):
            auth0.login(flow=flow, show=show)
        assert sys.stderr.getvalue() == ""

    def test_show_gets_the_prompt_that_json_prints(self, auth0, tenant):
        prompts = []

        def show(prompt):
            prompts.append(prompt)
            threading.Thread(target=tenant.login_as, args=(prompt["url"],)).start()

        auth0.login(flow="browser", show=show, open_browser=False)
        assert list(prompts[0]) == ["event", "url", "redirect_uri", "expires_in"]

    def test_bearer_puts_a_valid_token_on_each_request(self, auth0, tenant):
        log_in(auth0, tenant)
        request = SimpleNamespace(headers={})
        assert auth0.bearer(request) is request
        assert request.headers["Authorization"] == f"Bearer {auth0.get_token()}"

    def test_get_token_of_the_module_takes_the_same_settings(self, auth0, tenant, tmp_path):
        log_in(auth0, tenant)
        config = {"domain": tenant.domain, "client_id": "practice-native"}
        token = auth0_cli.get_token(audience=API, cache=tmp_path / "sessions", **config)
        assert token == auth0.get_token()
        with pytest.raises(TypeError):
            auth0_cli.get_token(colour="red")

    def test_a_program_mounts_the_command_line(self, auth0, tenant, capsys):
        assert auth0_cli.main(["status"], prog="mytool auth", defaults=auth0) == 3
        assert "mytool auth login" in capsys.readouterr().err
        log_in(auth0, tenant)
        assert auth0_cli.main(["token"], defaults=auth0) == 0
        assert capsys.readouterr().out == auth0.get_token() + "\n"
        assert auth0_cli.main(["logout"], defaults=auth0) == 0
        assert auth0.session() is None

    def test_of_many_who_force_a_login_one_asks_for_it_too(self, cli, tenant, desk, capsys):
        tenant.clients["practice-native"].grants.discard("refresh_token")
        clients = [client(tenant, cli.cache, scope="openid") for _ in range(3)]
        begin = threading.Barrier(3)

        def work(one):
            begin.wait(10)
            return one.get_token(interactive=True, force_refresh=True)

        with ThreadPoolExecutor() as pool:
            tokens = set(pool.map(work, clients))
        assert len(tokens) == tenant.count("authorization_code") == 1

    @pytest.mark.parametrize("min_ttl", [None, "x", -1, float("nan")])
    def test_min_ttl_that_is_no_number_of_seconds_is_told(self, auth0, tenant, min_ttl):
        log_in(auth0, tenant)
        for get in (auth0.get_token, auth0.get_id_token):
            with pytest.raises(ConfigError, match="min_ttl"):
                get(min_ttl=min_ttl)

    def test_a_login_on_demand_serves_another_organization(self, cli, tenant, auth0, desk):
        log_in(auth0, tenant)
        other = client(tenant, cli.cache, organization="org_1")
        assert other.get_token(interactive=True) in tenant.access_tokens
        assert other.session().organization == "org_1"

    def test_a_login_on_demand_for_a_scope_is_a_full_session(self, auth0, tenant, desk):
        assert auth0.get_token(scope="read:things", interactive=True) in tenant.access_tokens
        session = auth0.session()
        assert session.refreshable
        assert session.user["name"] == "Alice Liddell"

    @pytest.mark.parametrize("ports", [0, "0", [0]], ids=repr)
    def test_port_0_is_any_free_one(self, tenant, cli, ports):
        tenant.any_loopback_port = True
        log_in(client(tenant, cli.cache, ports=ports), tenant, flow="browser")
        (sent,) = (request for request in tenant.requests if request.path == "/authorize")
        assert not re.search(r":1848\d/", sent.params["redirect_uri"])

    @pytest.mark.parametrize(
        ("name", "exit_code", "arguments"),
        [
            ("Auth0Error", 1, {}),
            ("ConfigError", 2, {}),
            ("LoginRequired", 3, {"error": "invalid_grant"}),
            ("LoginFailed", 4, {"error": "access_denied"}),
            ("InvalidToken", 4, {"claim": "nonce"}),
            ("OAuthError", 4, {"error": "e", "description": "why", "status": 403}),
            ("NetworkError", 5, {}),
            ("CacheError", 1, {}),
        ],
    )
    def test_errors_survive_pickling(self, name, exit_code, arguments):
        error = getattr(auth0_cli, name)("what happened", **arguments)
        copy = pickle.loads(pickle.dumps(error))
        assert isinstance(copy, auth0_cli.Auth0Error)
        assert type(copy) is type(error)
        assert (str(copy), vars(copy)) == ("what happened", vars(error))
        assert (copy.exit_code, copy.retryable) == (exit_code, name == "NetworkError")
        assert vars(copy).items() >= arguments.items()

    def test_an_oauth_error_has_the_words_of_the_server(self, tenant):
        auth0 = Auth0(
            tenant.domain, "practice-machine", client_secret="a-wrong-one", cache=MemoryCache()
        )
        with pytest.raises(OAuthError) as caught:
            auth0.get_token(audience=API)
        error = caught.value
        assert (error.error, error.description, error.status) == (
            "access_denied",
            "Unauthorized",
            401,
        )

    def test_memory_forgets_at_a_login_and_a_logout(self, auth0, tenant):
        log_in(auth0, tenant)
        before = auth0.get_token()
        log_in(auth0, tenant, "bob")
        assert tenant.access_tokens[auth0.get_token()][0].sub == "auth0|bob"
        assert auth0.get_token() != before
        auth0.logout()
        with pytest.raises(LoginRequired):
            auth0.get_token()

    @pytest.mark.parametrize("seconds", [1.1, -100], ids=["later", "clock set back"])
    def test_memory_is_used_for_a_second_only(self, auth0, tenant, cli, hurried, seconds):
        log_in(auth0, tenant)
        auth0.get_token()
        client(tenant, cli.cache).logout()
        hurried.sleeps.append(seconds)
        with pytest.raises(LoginRequired):
            auth0.get_token()

    def test_of_many_who_need_a_login_one_asks_for_it(self, cli, tenant, desk, capsys):
        clients = [client(tenant, cli.cache) for _ in range(3)]
        begin = threading.Barrier(3)

        def work(one):
            begin.wait(10)
            return one.get_token(interactive=True)

        with ThreadPoolExecutor(3) as pool:
            assert len(set(pool.map(work, clients))) == 1
        assert tenant.count("/authorize") == 1

    def test_a_flow_that_is_none_is_named(self, auth0, tenant):
        with pytest.raises(ConfigError, match="magic"):
            auth0.login(flow="magic", show=print, timeout=1)
        assert tenant.requests == []

    def test_a_login_without_an_id_token_is_called_so(self, auth0, tenant):
        tenant.break_next("/oauth/token", change=lambda reply: {**reply, "id_token": None})
        with pytest.raises(InvalidToken, match="holds no ID token"):
            log_in(auth0, tenant)

    def test_a_user_is_kept_as_the_token_names_it(self, auth0, tenant):
        tenant.id_claims = {"sub": "x  y", "name": 7, "email": ["eve@example.test"]}
        user = {"sub": "x  y", "name": None, "email": None}
        assert log_in(auth0, tenant).user == user
        auth0.get_token(force_refresh=True)

    def test_what_can_not_be_deleted_is_revoked(self, tenant):
        def delete(key):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        cache = DictCache()
        auth0 = client(tenant, cache)
        log_in(auth0, tenant)
        cache.delete = delete
        with pytest.raises(auth0_cli.CacheError, match="Read-only"):
            auth0.logout()
        assert tenant.count("/oauth/revoke") == 1

    def test_a_revocation_is_asked_for_again(self, logged_in, tenant, call, hurried):
        tenant.break_next("/oauth/revoke", status=503)
        call("logout")
        assert tenant.count("/oauth/revoke") == 2

    def test_a_client_id_adds_no_parameter_to_the_page_of_the_logout(
        self, cli, tenant, monkeypatch, capsys
    ):
        name = (tenant.domain, "c&returnTo=//evil", "default")
        record = json.dumps(auth0_cli._new_record(*name)).encode()
        FileCache(cli.cache).write(auth0_cli._session_key(*name), record)
        monkeypatch.setattr(auth0_cli, "_open_browser", lambda _: False)
        Auth0(*name[:2], cache=cli.cache).logout(browser=True)
        assert "/v2/logout?client_id=c%26returnTo%3D%2F%2Fevil\n" in capsys.readouterr().err

    def test_get_token_of_the_module_takes_what_is_no_key(self, auth0, tenant, cli):
        log_in(auth0, tenant)
        config = {"domain": tenant.domain, "client_id": "practice-native", "cache": cli.cache}
        token = get_token(audience=API, params={"connection": "x"}, **config)
        assert token == auth0.get_token()

    def test_a_session_of_nobody_takes_the_id_token_of_a_refresh(self, logged_in, tenant, call):
        logged_in.edit(lambda record: record.update(user={}, id_token=None))
        assert call("token", "--force-refresh").out.strip() in tenant.access_tokens

    def test_what_a_refresh_for_the_wrong_api_brings_is_kept(self, logged_in, tenant, call):
        tenant.id_claims = {"email": "new@example.test"}
        call("token", "--audience", OTHER_API, code=3)
        id_token = json.loads(logged_in.session_file.read_text())["id_token"]
        assert claims_of(id_token)["email"] == "new@example.test"

    def test_a_thread_with_a_small_stack_survives_json_that_is_nested_deeply(self, cli, tenant):
        script = f"""if True:
            import threading, auth0_cli
            def run():
                settings = dict(client_secret="s", audience="a", cache=auth0_cli.MemoryCache())
                try:
                    auth0_cli.Auth0({tenant.domain!r}, "practice-machine", **settings).get_token()
                except auth0_cli.Auth0Error as problem:
                    print(type(problem).__name__)
            threading.stack_size(64 * 1024)
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()"""
        for nested in (b"[" * 100_000, b'{"a":' * 50_000):
            tenant.break_all("/oauth/token", body=b'{"x":' + nested)
            assert cli.python(script).finish().out == "NetworkError\n"
            tenant.mend()

    @table("duplicate", {"copy": copy.copy, "pickle": lambda o: pickle.loads(pickle.dumps(o))})
    def test_a_copy_carries_settings_only(self, logged_in, tenant, monkeypatch, duplicate):
        auth0 = client(tenant, str(logged_in.cache), profile="default")
        token = auth0.get_token()
        other = duplicate(auth0)
        assert token not in repr(vars(other))
        assert other.get_token() == token  # which it reads from the file
        monkeypatch.setenv("AUTH0_CLI_CACHE", str(logged_in.cache))
        of_the_environment = client(tenant, None)
        assert of_the_environment.get_token() == token
        other = duplicate(of_the_environment)
        monkeypatch.setenv("AUTH0_CLI_CACHE", str(logged_in.cache / "of another machine"))
        with pytest.raises(LoginRequired):
            other.get_token()


class TestAutomation:
    """A job of CI, where nobody sees a prompt."""

    @pytest.mark.parametrize("flow", ["auto", "browser", "device"])
    @pytest.mark.parametrize("value", ["true", "1", "yes"])
    def test_a_login_that_needs_a_person_fails_at_once(
        self, call, monkeypatch, tenant, value, flow
    ):
        monkeypatch.setenv("CI", value)
        err = call("login", "--flow", flow, code=3).err
        assert "CI is set" in err
        assert "AUTH0_CLIENT_SECRET" in err
        assert "--client-secret-file" in err
        assert tenant.requests == []

    def test_so_does_one_on_demand(self, call, monkeypatch, tenant, auth0):
        monkeypatch.setenv("CI", "true")
        assert "CI is set" in call("token", "--login", code=3).err
        with pytest.raises(LoginRequired, match="CI is set"):
            auth0.get_token(interactive=True)
        assert tenant.requests == []

    @pytest.mark.parametrize("value", ["", "0", "false", "False"])
    def test_elsewhere_it_goes_on(self, call, monkeypatch, value):
        monkeypatch.setenv("CI", value)
        err = call("login", "--flow", "device", "--client-id", "practice-nodevice", code=4).err
        assert "device flow" in err

    def test_a_program_that_shows_the_prompt_goes_on(self, cli, auth0, tenant, monkeypatch):
        monkeypatch.setenv("CI", "true")
        log_in(auth0, tenant)
        cli.login(env={"CI": "true"})

    def test_what_needs_no_person_goes_on(self, call, tenant, monkeypatch):
        monkeypatch.setenv("CI", "true")
        call("login", by=machine(tenant.domain))
        stdin = SimpleNamespace(isatty=lambda: False, readline=lambda: "wonderland-1\n")
        monkeypatch.setattr(sys, "stdin", stdin)
        call("login", "--flow", "password", "--username", "alice")

    def test_a_terminal_goes_on(self, cli):
        screen = Screen(cli, "login", "--flow", "device", "--no-browser", CI="true")
        screen.until("Waiting")
        screen.type("\x03")
        screen.finish(130)


KUBECTL = "client.authentication.k8s.io"


class TestFurtherUses:
    def test_any_grant_asks_for_the_organization_that_is_set(self, tenant):
        program = machine(tenant.domain)
        program._arguments["organization"] = "org_1"
        program.grant("client_credentials", store=True)
        assert tenant.requests[-1].params["organization"] == "org_1"

    def test_kubectl_gets_the_id_token_and_its_expiry(self, logged_in):
        credential = json.loads(logged_in.run("token", "--exec-credential").out)
        assert set(credential) == {"apiVersion", "kind", "status"}
        assert credential["apiVersion"] == "client.authentication.k8s.io/v1"
        assert credential["kind"] == "ExecCredential"
        token = credential["status"]["token"]
        assert token == logged_in.run("token", "--id-token").out.strip()
        expiry = time.strptime(credential["status"]["expirationTimestamp"], "%Y-%m-%dT%H:%M:%SZ")
        assert calendar.timegm(expiry) == claims_of(token)["exp"]

    @pytest.mark.parametrize("configured", [False, True], ids=["public", "confidential"])
    @pytest.mark.parametrize(
        ("info", "answer"),
        [
            ({"apiVersion": f"{KUBECTL}/v1beta1", "spec": {"interactive": False}}, "v1beta1"),
            ({"apiVersion": f"{KUBECTL}/v1", "kind": "ExecCredential"}, "v1"),
            ({}, "v1"),
            ("{", "v1"),
            ("", "v1"),
        ],
    )
    def test_kubectl_gets_the_version_that_it_asks_for(
        self, logged_in, call, monkeypatch, info, answer, configured
    ):
        text = info if isinstance(info, str) else json.dumps(info)
        monkeypatch.setenv("KUBERNETES_EXEC_INFO", text)
        if configured:  # the user who is logged in stays the one whose token it is
            monkeypatch.setenv("AUTH0_CLIENT_SECRET", MACHINE_SECRET)
        credential = json.loads(call("token", "--exec-credential").out)
        assert credential["apiVersion"] == f"{KUBECTL}/{answer}"
        claims = claims_of(credential["status"]["token"])
        assert (claims["sub"], claims["aud"]) == ("auth0|alice", "practice-native")

    @pytest.mark.parametrize("version", [f"{KUBECTL}/v1alpha1", "x", 1, None], ids=repr)
    def test_kubectl_of_an_unknown_version_is_exit_2(self, call, monkeypatch, tenant, version):
        monkeypatch.setenv("KUBERNETES_EXEC_INFO", json.dumps({"apiVersion": version}))
        err = call("token", "--exec-credential", code=2).err
        assert f"kubectl wants {version}: set {KUBECTL}/v1 " in err
        assert tenant.requests == []

    @pytest.mark.parametrize("kept", [True, False])
    def test_kubectl_gets_the_access_token_of_a_machine(self, call, tenant, kept):
        by = machine(tenant.domain)
        if not kept:
            by._arguments["cache"] = DictCache()
            by._arguments["cache"].write = lambda *_: 1 / 0
        for _ in range(2):
            status = json.loads(call("token", "--exec-credential", by=by).out)["status"]
            assert status["token"] in tenant.access_tokens
            expiry = time.strptime(status["expirationTimestamp"], "%Y-%m-%dT%H:%M:%SZ")
            assert abs(calendar.timegm(expiry) - claims_of(status["token"])["exp"]) < 5
        assert tenant.count("client_credentials") == 1

    def test_kubectl_of_nobody_is_told_to_log_in(self, call):
        assert "login --domain" in call("token", "--exec-credential", code=3).err

    @pytest.mark.parametrize("store", [False, True])
    def test_any_other_grant_gives_a_token(self, auth0, tenant, store):
        parameters = {"username": "alice@example.test", "password": "wonderland-1"}
        token = auth0.grant("password", store=store, **parameters)
        assert token in tenant.access_tokens
        assert (auth0.session() is not None) is store
        assert tenant.requests[-1 - store].params["audience"] == API
        if store:
            assert auth0.get_token() == token

    def test_a_grant_that_is_refused_says_why(self, auth0):
        with pytest.raises(OAuthError) as refused_with:
            auth0.grant("urn:ietf:params:oauth:grant-type:token-exchange", subject_token="x")
        assert refused_with.value.error in ("unsupported_grant_type", "unauthorized_client")

    def test_logout_ends_the_browser_s_session_too(self, logged_in, tenant, tmp_path):
        browser = browser_that_runs(OPEN, tmp_path)
        logged_in.run("logout", "--browser", env={"BROWSER": browser, "DISPLAY": ":1"})
        tenant.wait_for(lambda: tenant.count("/v2/logout"))
        assert not any(session.is_alive for session in tenant.sessions)

    def test_a_token_is_not_kept_in_memory_for_longer_than_it_is_wanted(
        self, auth0, tenant, hurried
    ):
        tenant.access_ttl = 100
        log_in(auth0, tenant)
        hurried.sleep(39.5)
        first = auth0.get_token()
        hurried.sleep(0.8)  # less than a second later, but also less than a minute before its end
        assert auth0.get_token() != first


# ---- Stories: Settings ---------------------------------------------------------------------------


class TestSettings:
    """Which value counts, and for which application."""

    def test_flag_beats_environment_beats_session(self, logged_in):
        token = logged_in.token()
        wrong = {"AUTH0_CLIENT_ID": "practice-other"}
        logged_in.run("token", env=wrong, exit=3)
        assert logged_in.token("--client-id", "practice-native", env=wrong) == token
        nothing = dict.fromkeys(["AUTH0_DOMAIN", "AUTH0_CLIENT_ID", "AUTH0_AUDIENCE"])
        assert logged_in.token(env=nothing) == token

    @pytest.mark.parametrize("command", ["token", "logout"])
    def test_each_session_that_matches_is_listed_with_the_command_that_chooses_it(
        self, cli, tenant, tmp_path, command
    ):
        place = str(tmp_path / "a place of its own")
        names = {f"profile {number}" for number in range(9)}
        for name in names:
            named = {"profile": name, "cache": place, "audience": API}
            auth0 = Auth0(tenant.domain, "practice-machine", client_secret=MACHINE_SECRET, **named)
            auth0.login(flow="client-credentials")
        bare = dict.fromkeys(["AUTH0_DOMAIN", "AUTH0_CLIENT_ID", "AUTH0_CLI_CACHE"])
        said = cli.run(command, "--cache", place, env=bare, exit=2).err
        advice = [shlex.split(text) for text in said.strip().split("as in ")[1].split("; ")]
        assert {words[words.index("--profile") + 1] for words in advice} == names
        words = advice[-1]
        cli.run(*words[words.index(command) :], env=bare)
        status = cli.run("status", "--json", "--cache", place, env=bare, exit=None).out
        left = {session["profile"] for session in json.loads(status)}
        chosen = {words[words.index("--profile") + 1]}
        assert left == (names if command == "token" else names - chosen)

    def test_several_sessions_that_match_are_listed_unless_one_is_the_default(self, cli, tenant):
        nothing = dict.fromkeys(["AUTH0_DOMAIN", "AUTH0_CLIENT_ID"])
        tokens = {}
        for profile in ("work", "home", "default"):
            auth0 = Auth0(tenant.domain, "practice-native", profile=profile, cache=cli.cache)
            log_in(auth0, tenant)
            tokens[profile] = auth0.get_token()
            if profile == "home":
                error = cli.run("token", env=nothing, exit=2).err
                assert "--profile work" in error
                assert "--profile home" in error
        nothing["AUTH0_AUDIENCE"] = None
        assert cli.token("--profile", "work", env=nothing) == tokens["work"]
        assert cli.token(env=nothing) == tokens["default"]
        assert [session["profile"] for session in cli.status()] == sorted(tokens)

    def test_two_spellings_of_a_domain_are_one_session(self, logged_in, tenant):
        token = logged_in.token()
        host, port = tenant.domain.rsplit(":", 1)
        spellings = (f"{tenant.domain}/", f" {tenant.domain}", tenant.domain.upper())
        for spelling in (*spellings, f"{host}:0{port}"):
            assert logged_in.token("--domain", spelling) == token
        assert tenant.count("refresh_token") == 0

    @pytest.mark.parametrize(
        "domain",
        [
            *("ftp://acme.auth0.com", "://acme.auth0.com", "acme.auth0.com:x", "acme.auth0.com:0"),
            *("acme.auth0.com:65536", "acme.auth0.com:\u0663", "-acme.auth0.com", ".acme.com"),
            *("acme.auth0.com:-1", "http://"),
        ],
    )
    def test_what_is_no_domain_is_named(self, call, tenant, domain):
        assert "is not a domain" in call("token", f"--domain={domain}", code=2).err
        assert tenant.requests == []

    def test_default_is_chosen_among_the_profiles_of_one_application_only(self, cli):
        cli.login()
        cli.login("--client-id", "practice-nodevice", "--profile", "work")
        env = {"AUTH0_DOMAIN": None, "AUTH0_CLIENT_ID": None}
        err = cli.run("token", env=env, exit=2).err
        assert "practice-native" in err
        assert "practice-nodevice" in err
        assert (
            "no session has the profile" in cli.run("token", "--profile", "x", env=env, exit=2).err
        )

    def test_an_empty_domain_is_one_that_is_not_given(self, auth0, tenant, cli):
        log_in(auth0, tenant)
        unnamed = Auth0("", cache=cli.cache)
        assert unnamed.get_token() == auth0.get_token()
        unnamed.logout()
        assert tenant.count("/oauth/revoke") == 1
        assert not list(cli.cache.glob("*.json"))

    def test_parameters_that_are_none_are_left_out(self, tenant):
        params = {"login_hint": None, "max_age": None, "ui_locales": "de"}
        log_in(client(tenant, MemoryCache(), params=params), tenant, flow="browser")
        (asked,) = [r.params for r in tenant.requests if r.path == "/authorize"]
        assert asked["ui_locales"] == "de"
        assert not {"login_hint", "max_age"} & set(asked)

    @pytest.mark.parametrize(
        "settings",
        [
            {"domain": 7},
            {"client_id": b"x"},
            {"scope": ["openid"]},
            {"audience": "a\nb"},
            {"profile": "\udcff"},
            {"min_ttl": float("nan")},
            {"min_ttl": "60"},
            {"min_ttl": -1},
        ],
        ids=str,
    )
    def test_a_value_of_the_wrong_kind_is_named(self, cli, settings):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            get_token(**{"domain": "a.example", "client_id": "c", "cache": cli.cache, **settings})

    def test_params_of_the_client_itself_are_refused(self, tenant):
        auth0 = Auth0(tenant.domain, "practice-native", params={"nonce": "x"}, cache=MemoryCache())
        with pytest.raises(ConfigError):
            auth0.login(flow="browser", open_browser=False, timeout=1)

    @table(
        "names",
        {
            "domain and client": ("AUTH0_DOMAIN", "AUTH0_CLIENT_ID"),
            "domain": ("AUTH0_DOMAIN",),
            "client": ("AUTH0_CLIENT_ID",),
        },
    )
    def test_the_environment_of_another_application_is_not_used(
        self, tenant, tmp_path, monkeypatch, desk, capsys, names
    ):
        secret = "acme-secret-0123456789"
        others = {
            "AUTH0_DOMAIN": "acme.eu.auth0.com",
            "AUTH0_CLIENT_ID": "acme-web",
            "AUTH0_CLIENT_SECRET": secret,
            "AUTH0_AUDIENCE": "https://acme.example/",
            "AUTH0_SCOPE": "openid read:acme",
            "AUTH0_ORGANIZATION": "org_acme",
        }
        for name, value in others.items():
            if name not in ("AUTH0_DOMAIN", "AUTH0_CLIENT_ID") or name in names:
                monkeypatch.setenv(name, value)
        auth0 = Auth0(tenant.domain, "practice-native", cache=tmp_path / "sessions")
        assert auth0.login().user["sub"] == "auth0|alice"  # with the browser, and not as a machine
        auth0.get_token(force_refresh=True)
        for command in ("login", "token --force-refresh", "doctor", "logout"):
            assert auth0_cli.main(command.split(), defaults=auth0) == 0, capsys.readouterr().err
        assert tenant.count("refresh_token") == 3  # one of them by the doctor
        assert tenant.count("/oauth/revoke") == 1
        for request in tenant.requests:
            values = set(request.params.values())
            assert not values & set(others.values())
            assert "read:acme" not in request.params.get("scope", "")

    def test_the_environment_counts_for_its_application_in_each_spelling(
        self, tenant, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("AUTH0_DOMAIN", tenant.domain.upper() + "/")
        monkeypatch.setenv("AUTH0_CLIENT_ID", "practice-machine")
        monkeypatch.setenv("AUTH0_CLIENT_SECRET", MACHINE_SECRET)
        monkeypatch.setenv("AUTH0_AUDIENCE", API)
        auth0 = Auth0(tenant.domain, "practice-machine", cache=tmp_path / "sessions")
        assert auth0.get_token() in tenant.access_tokens

    def test_a_secret_alone_counts_for_the_client_of_the_arguments(
        self, tenant, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("AUTH0_CLIENT_SECRET", MACHINE_SECRET)
        settings = {"audience": API, "cache": tmp_path / "sessions"}
        auth0 = Auth0(tenant.domain, "practice-machine", **settings)
        assert auth0.get_token() in tenant.access_tokens

    def test_a_secret_of_the_environment_is_for_no_client_that_the_store_names(
        self, tenant, logged_in, monkeypatch
    ):
        monkeypatch.setenv("AUTH0_CLIENT_SECRET", "somebody-s-secret-0123456789")
        unnamed = Auth0(cache=logged_in.cache)
        assert unnamed.get_token(force_refresh=True) in tenant.access_tokens
        monkeypatch.setenv("AUTH0_DOMAIN", tenant.domain)  # half a name is none
        assert unnamed.get_token(force_refresh=True) in tenant.access_tokens
        unnamed.logout()
        assert tenant.count("/oauth/revoke") == 1
        for request in tenant.requests:
            assert "client_secret" not in request.params

    @pytest.mark.parametrize(
        "name",
        [
            *("client_secret", "state", "redirect_uri", "code_challenge", "code_challenge_method"),
            *("response_type", "response_mode", "client_id", "nonce", "request", "request_uri"),
            *("scope", "audience", "organization"),
            *("State", "STATE ", "scope[]", "redirect_uri[0]", "Client_ID"),
        ],
    )
    def test_a_parameter_of_its_own_is_refused_in_each_spelling(self, tenant, call, name):
        by = client(tenant, MemoryCache())
        command = ("login", "--flow", "browser", "--no-browser", "--timeout", "1", "--param")
        result = call(*command, f"{name}=x", code=2, by=by)
        assert "--param" in result.err
        assert tenant.requests == []

    def test_a_max_age_of_5000_digits_is_refused(self, tenant, call):
        by = client(tenant, MemoryCache(), params={"max_age": "9" * 5000})
        assert "max_age" in call("login", "--flow", "browser", code=2, by=by).err
        assert tenant.requests == []

    @pytest.mark.parametrize("domain", ["127.0.0.08", "127.0.00.1", "127.0.0.256", "0127.0.0.1"])
    def test_what_some_resolvers_read_differently_is_no_loopback_address(self, domain, call):
        by = Auth0(f"http://{domain}:8080", "c", cache=MemoryCache())
        assert "plain http" in call("token", code=2, by=by).err

    @pytest.mark.parametrize("port", ["000001999999", "65536", "0", "000", "9" * 5000])
    def test_a_port_that_is_none_is_refused(self, port, call):
        by = Auth0(f"http://127.0.0.1:{port}", "c", cache=MemoryCache())
        assert "is not a domain" in call("token", code=2, by=by).err

    @pytest.mark.parametrize(
        "host",
        [
            *("127.evil.example", "127.0.0.256:80", "a", "10.0.0.1", "192.168.1.1:8080"),
            *("0.0.0.0", "[::2]", "acme.auth0.com"),
        ],
    )
    def test_plain_http_to_another_machine_is_refused(self, call, host):
        assert "http" in call("token", "--domain", f"http://{host}", code=2).err


# ---- Stories: Command line -----------------------------------------------------------------------


class TestCommandLine:
    def test_help_and_version_go_to_stdout(self, cli, tenant):
        assert auth0_cli.__version__ in cli.run("--version").out
        assert "examples:" in cli.run("-h").out
        callbacks = ", ".join(tenant.clients["practice-native"].callbacks)
        assert callbacks in cli.run("login", "--help").out

    @pytest.mark.parametrize(
        "arguments",
        [
            "nonsense",
            "token --nonsense",
            "token extra",
            "token --min-ttl soon",
            "login --flow magic",
            "login --timeout -1",
            "login --timeout nan",
            "login --port 65536",
            "login --port x",
            "login --param connection",
            "login --param max_age=soon",
            "token --domain acme.auth0.com/path",
            "token --domain user@acme.auth0.com",
            "token --client-secret-file no-such-file",
        ],
    )
    def test_misuse_is_exit_2_and_one_line_on_stderr(self, auth0, tenant, capsys, arguments):
        assert auth0_cli.main(arguments.split(), defaults=auth0) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert re.fullmatch(r"auth0_cli: .+\n", printed.err)
        assert tenant.requests == []

    def test_without_a_command_it_shows_the_help(self, cli):
        result = cli.run(exit=2)
        assert "usage:" in result.err
        assert result.out == ""

    @pytest.mark.parametrize("command", ["login", "token"])
    def test_missing_settings_are_named(self, cli, command):
        env = {"AUTH0_DOMAIN": None, "AUTH0_CLIENT_ID": None}
        error = cli.run(command, env=env, exit=2).err
        assert "AUTH0_DOMAIN" in error
        assert "AUTH0_CLIENT_ID" in error

    def test_token_as_json_as_header_and_the_id_token(self, logged_in):
        token = logged_in.token()
        value = json.loads(logged_in.run("token", "--json").out)
        names = ["access_token", "token_type", "expires_at", "expires_in", "audience", "scope"]
        assert list(value) == names
        assert (value["access_token"], value["token_type"]) == (token, "Bearer")
        assert abs(value["expires_at"] - value["expires_in"] - time.time()) < 60
        assert logged_in.token("--header") == f"Authorization: Bearer {token}"
        claims = logged_in.token("--id-token").split(".")[1]
        assert json.loads(base64.urlsafe_b64decode(claims + "=="))["aud"] == "practice-native"

    def test_an_expired_id_token_is_refreshed(self, cli, tenant):
        tenant.id_ttl = -30  # within what clocks may differ
        cli.login()
        tenant.id_ttl = 36000
        id_tokens = [cli.token("--id-token") for _ in range(2)]
        assert id_tokens[0] == id_tokens[1]
        assert tenant.count("refresh_token") == 1

    def test_an_option_is_not_abbreviated(self, logged_in):
        assert "--aud" in logged_in.run("token", "--aud", API, exit=2).err

    def test_verbose_tells_each_request_in_a_line(self, logged_in, tenant):
        asked = len(tenant.requests)
        result = logged_in.run("token", "--force-refresh", "-v")
        lines = result.err.splitlines()
        assert len(lines) == len(tenant.requests) - asked
        assert re.fullmatch(r".*POST /oauth/token.* 200 .*\d+ ms", lines[0])

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    @pytest.mark.parametrize(
        "arguments", [["token"], ["token", "--json"], ["status"], ["-h"], ["token", "-h"]]
    )
    def test_a_result_that_can_not_be_printed_is_told_once(self, logged_in, arguments):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, str(Demo.program), *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env={**logged_in.env, "PYTHONUNBUFFERED": ""},
                check=False,
            )
        assert done.returncode == 1
        said = r"auth0_cli: the result could not be written to stdout: No space left on device\n"
        assert re.fullmatch(said, done.stderr)

    def test_a_name_that_stdout_has_no_signs_for_is_printed_all_the_same(self, cli, tenant):
        tenant.id_claims = {"name": "J\u00fcrgen \u4e2d"}
        cli.login()
        running = cli.start("status", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
        assert "J\\xfcrgen \\u4e2d" in running.finish().out

    @pytest.mark.parametrize("data", [b"\xff\xfe", b"", b" \r\n", b"A=x\nhunter2=y"], ids=repr)
    def test_a_secret_file_without_a_secret_is_exit_2(self, call, tmp_path, tenant, data):
        path = tmp_path / "secret"
        path.write_bytes(data)
        err = call("token", "--client-secret-file", str(path), code=2).err
        assert "--client-secret-file" in err
        assert "hunter2" not in err
        assert tenant.requests == []

    def test_a_secret_file_in_the_home_directory_is_found(
        self, call, tenant, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("HOME" if POSIX else "USERPROFILE", str(tmp_path))
        (tmp_path / "secret").write_text(MACHINE_SECRET)
        call("token", "--client-secret-file=~/secret", by=machine(tenant.domain))

    def test_a_stdin_that_is_closed_holds_no_password(self, call, monkeypatch, tenant):
        monkeypatch.setattr(sys, "stdin", None)
        call("login", "--flow", "password", "--username", "alice", code=2)
        assert tenant.requests == []

    def test_a_password_is_typed_unseen(self, call, monkeypatch, tenant):
        import getpass

        monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr(getpass, "getpass", lambda prompt: " wonderland-1 ")
        call("login", "--flow", "password", "--username", "alice")
        assert tenant.count("password") == 1


class TestMessages:
    """What a message must not repeat, and what it has to say."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--client-secret", "hunter2-secret", "login"],
            ["--client-secret=hunter2-secret", "login"],
            ["login", "--password", "hunter2-secret"],
            ["login", "--json=hunter2-secret"],
            ["token", "--header=hunter2-secret"],
            ["login", "-vs3cret-hunter2"],
            ["login", "--client-secret-file", "hunter2-secret"],
        ],
        ids=" ".join,
    )
    def test_a_secret_in_the_wrong_place_is_not_repeated(self, cli, arguments):
        result = cli.run(*arguments, exit=2)
        assert "hunter2" not in result.err
        assert result.err.count("\n") == 1

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (
                "logout --port=18484",
                "logout does not take --port, an option of login, token, doctor:",
            ),
            (
                "status --audience x",
                "status does not take --audience, an option of login, token, doc",
            ),
            ("doctor --login", "doctor does not take --login, an option of token:"),
            ("token --flow device", "token does not take --flow, an option of login:"),
            ("token --headr", "token does not take --headr: see "),
            ("token -q", "token does not take such an argument: see "),
        ],
    )
    def test_an_option_that_a_command_does_not_take_is_named(self, call, arguments, words):
        err = call(*arguments.split(), code=2).err
        assert err.startswith(f"auth0_cli: {words}")
        assert err.endswith(f" {arguments.split()[0]} -h\n")

    @pytest.mark.parametrize("flag", ["-h", "--version"])
    def test_help_ends_no_program_that_has_mounted_it(self, flag, capsys):
        assert auth0_cli.main([flag]) == 0
        assert capsys.readouterr().out

    @pytest.mark.parametrize("stdin", ["", None])
    def test_a_password_that_can_not_be_read_is_exit_2(self, cli, stdin):
        flags = ("--flow", "password", "--username", "alice@example.test")
        assert "password" in cli.run("login", *flags, stdin=stdin, exit=2).err

    def test_the_next_step_names_the_api_and_the_command_as_it_was_typed(self, logged_in, tenant):
        command = [sys.executable, str(Demo.program), "token", "--audience", OTHER_API]
        done = subprocess.run(
            command, env=logged_in.env, capture_output=True, text=True, check=False
        )
        step = done.stderr.partition(": run ")[2].split()
        assert step[1:3] == [str(Demo.program), "login"]
        err = logged_in.run("token", "--audience", OTHER_API, exit=3).err
        assert "-m auth0_cli login" in err
        logged_in.login(*step[3:])
        assert logged_in.token("--audience", OTHER_API) in tenant.access_tokens

    def test_an_error_of_login_is_an_event_wherever_it_comes_from(self, cli):
        for arguments in (["--param", "x"], ["--client-secret-file", "/nowhere"]):
            event = event_of(cli.run("login", "--json", *arguments, exit=2))
            assert (event["event"], event["error"]) == ("error", "config_error")

    @not_on_windows("Windows removes no directory that a process works in")
    def test_a_place_that_is_gone_or_strange_is_named_in_one_clean_line(self, cli, tmp_path):
        gone = tmp_path / "gone"
        gone.mkdir()
        script = f"""if True:
            import os
            os.chdir({str(gone)!r})
            os.rmdir(os.getcwd())
            import auth0_cli
            exit(auth0_cli.main())"""
        err = cli.python(script, "token", env={"AUTH0_CLI_CACHE": "sessions"}).finish(1).err
        assert err.count("\n") == 1
        assert "--cache" in err
        strange = tmp_path / "a\x1b[2Jb"
        strange.mkdir(0o777)
        strange.chmod(0o777)
        assert "\x1b" not in cli.run("token", "--cache", str(strange), exit=1).err

    def test_a_parameter_that_is_not_utf_8_is_exit_2(self, cli):
        arguments = ("login", "--flow", "browser", "--no-browser", "--param", "x=caf\udce9-hunter2")
        error = cli.run(*arguments, exit=2).err
        assert "hunter2" not in error
        assert error.count("\n") == 1

    @pytest.mark.parametrize("name", ["AUTH0_CLIENT_SECRET", "AUTH0_SCOPE"])
    def test_a_value_that_is_not_utf_8_is_exit_2(self, cli, name):
        env = {"AUTH0_CLIENT_ID": "practice-machine", "AUTH0_CLIENT_SECRET": MACHINE_SECRET}
        env[name] = "caf\udce9-hunter2"
        for error in (cli.run("token", env=env, exit=2).err, cli.run("login", env=env, exit=2).err):
            assert "hunter2" not in error
            assert error.count("\n") == 1

    @pytest.mark.parametrize(("columns", "widest"), [("50", 50), ("160", 160), ("wide", 80)])
    def test_help_is_as_wide_as_it_is_told(self, cli, columns, widest):
        lines = cli.run("token", "-h", env={"COLUMNS": columns}).out.splitlines()
        first = next(i for i, line in enumerate(lines) if "--help" in line)
        assert widest / 2 < max(map(len, lines[first:])) <= widest

    @pytest.mark.parametrize("columns", [50, 40])
    @pytest.mark.parametrize("command", ["", *auth0_cli._COMMANDS])
    def test_help_breaks_between_words_and_in_no_command(
        self, capsys, monkeypatch, columns, command
    ):
        def help_at(columns):
            monkeypatch.setenv("COLUMNS", str(columns))
            assert auth0_cli.main([*command.split(), "-h"]) == 0
            return capsys.readouterr().out

        wide, narrow = help_at(1000), help_at(columns)
        assert narrow.split() == wide.split()
        whole = [line for line in wide.splitlines() if re.match(r"  (python|http)", line)]
        lines = narrow.splitlines()
        assert len(whole) >= 2
        assert set(whole) < set(lines)
        assert max(len(line) for line in lines if line not in whole) <= columns

    def test_each_command_offers_the_options_that_mean_something_to_it(self, capsys):
        offered = {}
        for command in auth0_cli._COMMANDS:
            auth0_cli.main([command, "-h"])
            options = re.findall("^  (?:-., )?--([a-z-]+)", capsys.readouterr().out, re.MULTILINE)
            offered[command] = set(options)
        sessions = {"help", "verbose", "domain", "client-id", "profile", "cache"}
        secret = {"client-secret-file"}
        assert offered["status"] == sessions | {"json"}
        assert offered["logout"] == sessions | secret | {"all", "local", "browser"}
        assert offered["doctor"] == sessions | secret | {"json", "audience", "port"}
        request = sessions | secret | {"audience", "scope", "organization", "port", "param", "json"}
        assert offered["login"] & offered["token"] == request

    def test_login_help_shows_the_ports_that_are_set(self, cli):
        env = {"AUTH0_CALLBACK_PORTS": "9000,9001"}
        line = "http://127.0.0.1:9000/callback, http://127.0.0.1:9001/callback"
        assert line in cli.run("login", "-h", env=env).out

    @pytest.mark.parametrize("stderr", [None, "closed", "full"], ids=str)
    def test_a_stderr_that_takes_nothing_changes_no_exit_code(
        self, auth0, monkeypatch, tmp_path, stderr
    ):
        if stderr == "full" and not os.path.exists("/dev/full"):
            pytest.skip("needs /dev/full")
        path = {"closed": tmp_path / "closed", "full": "/dev/full"}.get(stderr)
        stream = path and open(path, "w", buffering=1)  # noqa: SIM115
        if stderr == "closed":
            stream.close()
        monkeypatch.setattr(sys, "stderr", stream)
        assert auth0_cli.main(["token"], defaults=auth0) == 3
        if stream:
            with contextlib.suppress(OSError):
                stream.close()

    def test_a_flood_of_words_is_cut(self, logged_in, tenant, call):
        body = {"error": "e" * 9999, "error_description": "w" * 99999}
        tenant.break_all("/oauth/token", status=400, body=body)
        assert len(call("token", "--force-refresh", code=4).err) < 600

    def test_the_next_step_is_quoted_for_the_shell(self, call):
        import shlex

        audience = "it's $(id) `id`; x"
        step = call("token", "--audience", audience, code=3).err.partition(": run ")[2]
        assert audience in shlex.split(step)

    def test_an_unknown_option_shows_no_value(self, call):
        assert "hunter2" not in call("login", "--sekret=hunter2", code=2).err

    def test_a_mistake_of_ours_shows_no_value(self, auth0, monkeypatch, capsys):
        def mistaken(*_):
            raise ValueError("hunter2")

        monkeypatch.setattr(auth0_cli, "_auth0_from", mistaken)
        assert auth0_cli.main(["status"], defaults=auth0) == 1
        err = capsys.readouterr().err
        place = r"\S+test_auth0_cli\.py:\d+ \(mistaken\)"
        said = f"auth0_cli: unexpected ValueError at {place}: please report it\n"
        assert re.fullmatch(said, err)
        assert auth0_cli.main(["status", "-v"], defaults=auth0) == 1
        err = capsys.readouterr().err
        assert re.fullmatch(rf"{said}(  \S+:\d+ \(\w+\)\n)+", err)
        assert re.search(rf"^  \S+auth0_cli\.py:\d+ \(_run\)\n  {place}\n", err, re.MULTILINE)


# ---- Stories: Prompts ----------------------------------------------------------------------------


def scan(lines):
    """Read a drawn QR code: its format, its data, and that its correction codewords are right."""
    pixels = []
    for line in lines:
        pixels.append([char in " ▄" for char in line])
        pixels.append([char in " ▀" for char in line])
    side = len(lines[0]) - 8
    grid = [row[4:-4] for row in pixels[4 : 4 + side]]
    assert not any(any(row) for row in pixels[:4]), "the quiet zone"
    timing = [i % 2 == 0 for i in range(8, side - 8)]
    assert [row[6] for row in grid[8:-8]] == grid[6][8:-8] == timing
    spots = [(8, x) for x in (0, 1, 2, 3, 4, 5, 7, 8)] + [(y, 8) for y in (7, 5, 4, 3, 2, 1, 0)]
    bits = sum(grid[y][x] << 14 - i for i, (y, x) in enumerate(spots)) ^ 0x5412
    assert bits >> 13 == 1, "level L"
    flips = [
        lambda x, y: (x + y) % 2,
        lambda x, y: y % 2,
        lambda x, y: x % 3,
        lambda x, y: (x + y) % 3,
        lambda x, y: (x // 3 + y // 2) % 2,
        lambda x, y: x * y % 2 + x * y % 3,
        lambda x, y: (x * y % 2 + x * y % 3) % 2,
        lambda x, y: ((x + y) % 2 + x * y % 3) % 2,
    ][bits >> 10 & 7]
    near = range(side - 9, side - 4)

    def is_data(x, y):
        corner = (x < 9 and y < 9) or (x < 9 and y >= side - 8) or (x >= side - 8 and y < 9)
        return not (corner or 6 in (x, y) or (side > 21 and x in near and y in near))

    stream, upward = [], True
    for right in [*range(side - 1, 6, -2), 5, 3, 1]:
        for y in range(side - 1, -1, -1) if upward else range(side):
            pair = [x for x in (right, right - 1) if is_data(x, y)]
            stream += [grid[y][x] ^ (flips(x, y) == 0) for x in pair]
        upward = not upward
    words = [
        int("".join(str(int(bit)) for bit in stream[i : i + 8]), 2)
        for i in range(0, len(stream) - 7, 8)
    ]
    size, degree = [(19, 7), (34, 10), (55, 15), (80, 20), (108, 26)][(side - 21) // 4]
    assert len(words) == size + degree
    powers = [1]
    while len(powers) < 255:
        powers.append(powers[-1] << 1 ^ (powers[-1] >> 7) * 0x11D)
    for root in range(degree):  # the polynomial of the block is 0 at each of them
        value = 0
        for word in words:
            value = (powers[(powers.index(value) + root) % 255] if value else 0) ^ word
        assert value == 0, "an error correction codeword"
    message = "".join(f"{word:08b}" for word in words[:size])
    assert message[:4] == "0100", "byte mode"
    length = int(message[4:12], 2)
    return bytes(int(message[12 + 8 * i : 20 + 8 * i], 2) for i in range(length)).decode()


class TestPrompts:
    """What a person at a terminal sees and types."""

    browser = ("login", "--flow", "browser", "--no-browser")

    def test_the_address_that_the_browser_ended_on_can_be_pasted(self, cli, tenant):
        screen = Screen(cli, *self.browser)
        url = screen.until(r"\n(http://127\.0\.0\.1:\d+/authorize\?\S+)\n")[1]
        screen.until("Waiting  [45]:[0-9]{2} ")
        screen.type("http://127.0.0.1:18484/callback?code=x&state=y\n")
        screen.until("That is not the address")
        screen.type(f"  <[{callback_of(tenant, url)}]>  \n")
        text = screen.finish()
        assert f"Logged in to {tenant.domain} as Alice Liddell" in text
        assert cli.token() in tenant.access_tokens
        assert len([one for one in tenant.requests if one.path == "/oauth/token"]) == 1

    def test_the_query_alone_can_be_pasted(self, cli, tenant):
        screen = Screen(cli, *self.browser)
        url = screen.until(r"\n(http://127\.0\.0\.1:\d+/authorize\?\S+)\n")[1]
        screen.until("Waiting")
        screen.type(callback_of(tenant, url).partition("?")[2] + "\n")
        screen.finish()
        assert cli.status()

    @table(
        "typed",
        {
            "a bracketed paste": "\x1b[200~{0}{1}\x1b[201~",
            # arrows of two modes, a function key of the Linux console, a reply of the terminal
            "keys": "\x1bOA{0}\x1b[[A\x1b]11;rgb:0/0/0\x1b\\{1}\x1b[C",
            "signs without width": "\ufeff{0}\u200b{1}\u00a0\u202c",
            "corrections": "htt\x7f\x7f\x7f\x7f{0}xx\x7f\x7f{1}",
            "a line taken back": "http://127.0.0.1/?code=x\x15{0}{1}",
            "a line break": "{0}\n  {1}",
            "a line break in a bracketed paste": "\x1b[200~{0}\r{1}\x1b[201~",
            "more than a terminal's line": "{0}{x}{1}",
        },
    )
    def test_a_pasted_address_is_read_whatever_comes_with_it(self, cli, tenant, typed):
        screen = Screen(cli, *self.browser, "--timeout", "30")
        url = screen.until(r"\n(http://127\.0\.0\.1:\d+/authorize\?\S+)\n")[1]
        screen.until("Waiting")
        start, code, end = callback_of(tenant, url).partition("code=")
        screen.type(typed.format(start, code + end, x="x=" + "x" * 5000 + "&") + "\n")
        screen.finish()
        assert cli.status()

    def test_an_escape_sequence_that_comes_in_two_parts_is_no_text(self, cli, tenant):
        screen = Screen(cli, *self.browser)
        url = screen.until(r"\n(http://127\.0\.0\.1:\d+/authorize\?\S+)\n")[1]
        start, code, end = callback_of(tenant, url).partition("code=")
        screen.type(f"{start}\x1b[2")
        screen.until(r"Waiting .*\?2")  # the first part has been read
        screen.type(f"00~{code}{end}\n")
        screen.finish()
        assert cli.status()

    def test_a_line_that_is_typed_is_shown_on_one_row(self, cli):
        screen = Screen(cli, *self.browser, columns=50)
        screen.until("Waiting")
        screen.type("x" * 200 + "END")
        screen.until("xEND")
        screen.type("\x03")
        rows = re.findall(r"\x1b\[J(Waiting [^\r\n]*)", screen.finish(130))
        assert max(map(len, rows)) == 49

    def test_an_address_copied_from_a_page_s_source_is_read(self, cli, tenant):
        screen = Screen(cli, *self.browser, "--timeout", "30")
        url = screen.until(r"\n(http://127\.0\.0\.1:\d+/authorize\?\S+)\n")[1]
        screen.type(html.escape(callback_of(tenant, url)) + "\n")
        screen.finish()
        assert cli.status()

    @table(
        "terminal",
        {
            "dumb": {"TERM": "dumb"},
            "not the controlling one": {"controls": False},
            "stderr through a pipe": {"through": "cat"},
        },
    )
    @pytest.mark.parametrize("answer", ["address", "c"])
    def test_a_line_is_read_wherever_one_can_be_typed(self, cli, tenant, terminal, answer):
        screen = Screen(cli, *self.browser, "--timeout", "30", **terminal)
        url = screen.until(r"\n(http://127\.0\.0\.1:\d+/authorize\?\S+)\n")[1]
        screen.until("paste its address here, or type c")
        screen.type("nonsense\n")
        screen.until("That is not the address")
        if answer == "address":
            screen.type(callback_of(tenant, url) + "\n")
            screen.finish()
            assert cli.status()
        else:
            screen.type("c\n")
            code = re.sub("\x1b.*?m", "", screen.until(r"enter the code  (\S+)\n")[1])
            assert tenant.find_device(code)
            if terminal.get("controls", True):
                screen.type("\x03")
            else:
                screen.process.send_signal(signal.SIGINT)
            screen.finish(130 if "through" not in terminal else 0)
        if terminal.get("controls", True):
            assert "\x1b" not in screen.raw

    @pytest.mark.parametrize("ends", ["\x03", "{address}\n"])
    def test_the_terminal_is_left_as_it_was(self, cli, tenant, ends):
        screen = Screen(cli, *self.browser)
        before = termios.tcgetattr(screen.fd)
        url = screen.until(r"\n(http://127\.0\.0\.1:\d+/authorize\?\S+)\n")[1]
        screen.until("Waiting")
        assert termios.tcgetattr(screen.fd) != before
        screen.type(ends.format(address=callback_of(tenant, url)))
        screen.process.wait(20)
        assert termios.tcgetattr(screen.fd) == before
        screen.finish(130 if ends == "\x03" else 0)

    def test_a_line_that_is_pasted_in_pieces_is_one_line(self):
        class Prompt(auth0_cli._Prompt):
            def _read_keys(self):
                return pieces.pop(0)

        pieces = ["http://127.0.0.1/\n", "callback\n", ""]
        prompt = Prompt()
        prompt._reads = True
        lines = [prompt.poll_line(0) for _ in range(3)]
        assert lines == [None, None, "http://127.0.0.1/callback"]

    def test_a_job_in_the_background_is_not_stopped_by_its_terminal(self, cli):
        screen = Screen(cli, *self.browser, "--timeout", "0.3", in_background=True)
        status = int(screen.until(r"ended as (\d+)\n")[1])
        assert (os.WIFEXITED(status), os.WEXITSTATUS(status)) == (True, 4)
        screen.finish()

    @pytest.mark.parametrize("stderr", ["IDLE", pytest.param("a notebook", marks=needs_pty)])
    def test_nothing_is_offered_where_nobody_can_type(self, auth0, monkeypatch, stderr):
        text, stdin = io.StringIO(), SimpleNamespace(isatty=lambda: True)
        fds = ()
        if stderr == "IDLE":
            text.isatty = lambda: True
        else:  # the kernel was started in a terminal
            fds = pty.openpty()
            text.fileno = stdin.fileno = lambda: fds[1]
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stderr", text)
        with pytest.raises(LoginFailed):
            auth0.login(flow="browser", open_browser=False, timeout=0.01)
        assert "paste" not in text.getvalue()
        assert "\x1b" not in text.getvalue()
        assert "Waiting for up to" in text.getvalue()
        for fd in fds:
            os.close(fd)

    def test_the_browser_can_be_given_up_for_a_code(self, cli, tenant):
        screen = Screen(cli, *self.browser)
        screen.until("type c and Enter")
        screen.until("Waiting")
        screen.type("c\n")
        code = re.sub("\x1b.*?m", "", screen.until(r"enter the code  (\S+)\n")[1])
        assert code in {device.user_code for device in tenant.devices.values()}
        screen.type("\x03")
        screen.finish(130)

    def test_no_code_is_offered_with_an_organization(self, cli):
        screen = Screen(cli, *self.browser, "--organization", "org_1")
        screen.until("paste its address here\\.")
        screen.type("c\n")
        screen.until("That is not the address")
        screen.type("\x03")
        screen.finish(130)

    def test_enter_opens_the_page_of_a_code(self, cli, tenant, tmp_path):
        opener = tmp_path / "opener.py"
        opener.write_text("import sys, urllib.request as u; u.urlopen(sys.argv[1])")
        browser = f"{sys.executable} {opener} %s"
        screen = Screen(cli, "login", "--flow", "device", BROWSER=browser)
        screen.until("Enter opens the page")
        screen.until("Waiting")
        screen.type("\n")
        tenant.wait_for(lambda: tenant.count("/activate"))
        screen.type("\x03")
        screen.finish(130)

    def test_the_countdown_goes_when_it_is_over_and_interruption_is_clean(self, cli):
        screen = Screen(cli, "login", "--flow", "device")
        screen.until("Waiting  5:00 ")
        screen.until("\r\x1b\\[JWaiting  4:5[0-9] ")
        screen.type("\x03")
        text = screen.finish(130)
        assert "Traceback" not in text
        assert "\r\x1b[J" in text

    @pytest.mark.parametrize(
        ("env", "size", "drawn"),
        [
            ({}, (80, 60), True),
            ({"NO_COLOR": "1"}, (80, 60), True),
            ({}, (80, 24), False),
            ({}, (36, 60), False),
            ({"TERM": "dumb"}, (80, 60), False),
            ({"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, (80, 60), False),
        ],
    )
    def test_a_qr_code_is_drawn_where_there_is_room(self, cli, tenant, env, size, drawn):
        screen = Screen(cli, "login", "--flow", "device", columns=size[0], lines=size[1], **env)
        screen.until("Waiting")
        screen.type("\x03")
        text = screen.finish(130)
        lines = [line for line in text.split("\n") if set("█▀▄") & set(line)]
        assert bool(lines) is drawn
        if env.get("NO_COLOR") or env.get("TERM"):
            assert "\x1b[" not in text.replace("\x1b[J", "")
        if drawn:
            plain = [re.sub("\x1b.*?m", "", line) for line in lines]
            code = re.sub("\x1b.*?m", "", re.search(r"enter the code  (\S+)\n", text)[1])
            assert scan(plain) == f"{tenant.issuer}activate?user_code={code}"

    def test_a_narrow_one_breaks_between_words_and_in_no_address(self, cli, tenant):
        screen = Screen(cli, "login", "--flow", "device", columns=27, NO_COLOR="1")
        screen.until("Waiting")
        screen.type("\x03")
        lines = screen.finish(130).split("\n")
        assert "To log in, open this page" in lines
        assert f"{tenant.issuer}activate" in lines
        assert all(len(line) <= 27 for line in lines if not ("://" in line or "\x1b" in line))
        assert any(re.fullmatch(r"\w{4}-\w{4}", line) for line in lines)

    def test_a_command_to_copy_stays_on_one_line(self, cli):
        env = {"SSH_CONNECTION": "192.0.2.1 1 a-host-with-a-long-name.example.com 2222"}
        screen = Screen(cli, *self.browser, columns=50, USER="alice", **env)
        screen.until("Waiting")
        screen.type("\x03")
        lines = [line for line in screen.finish(130).split("\n") if "\x1b" not in line]
        assert any(
            re.fullmatch(r"ssh -L \d+:\S+ -p 2222 alice@a-host-\S+com", line) for line in lines
        )
        assert all(len(line) <= 50 or line.startswith(("ssh ", "http://")) for line in lines)

    def test_a_pipe_gets_plain_lines_and_a_qr_code_on_request(self, cli):
        for flags, drawn in (([], False), (["--qr"], True), (["--no-qr"], False)):
            command = ["login", "--flow", "device", "--timeout", "0.5", *flags]
            text = cli.run(*command, exit=4).err
            assert ("█" in text) is ("scan this code" in text) is drawn
            assert "\x1b" not in text
            assert "Waiting for up to 0 s" in text

    @pytest.mark.parametrize("length", [1, 17, 18, 32, 33, 53, 54, 78, 79, 106])
    def test_a_qr_code_of_any_length_is_read_back(self, length):
        text = "".join(random.Random(length).choices("abcXYZ019:/?=&-._~", k=length))
        assert scan(auth0_cli._qr_text(text, False).splitlines()) == text

    def test_a_page_too_long_for_a_qr_code_is_shown_without_one(self, cli, tenant):
        page = f"{tenant.issuer}activate?user_code=X&{'x' * 80}"
        change = {"verification_uri_complete": page}
        tenant.break_next("/oauth/device/code", change=lambda reply: overridden(reply, change))
        screen = Screen(cli, "login", "--flow", "device", "--qr")
        screen.until("Waiting")
        screen.type("\x03")
        lines = screen.finish(130).split("\n")
        assert page in lines
        assert "█" not in "".join(lines)

    @pytest.mark.parametrize("of_a_file", [pytest.param(True, marks=needs_pty), False])
    def test_one_that_tells_no_size_is_one_of_80_columns(
        self, auth0, tenant, hurried, monkeypatch, of_a_file
    ):
        class Console:
            text = ""

            def isatty(self):
                return True

            def flush(self):
                pass

            def write(self, text):
                if code := re.search(r"enter the code  \S*?(\w{4}-\w{4})", text):
                    tenant.approve(code[1])
                self.text += text

        monkeypatch.setattr(sys, "stderr", Console())
        fds = pty.openpty() if of_a_file else ()
        if of_a_file:  # a new terminal has 0 columns
            sys.stderr.fileno = lambda: fds[1]
        auth0.login(flow="device", open_browser=False)
        assert "never for a code that\nsomeone sent you." in sys.stderr.text
        for fd in fds:
            os.close(fd)

    def test_the_password_is_asked_for_after_the_warning(self, cli, tenant):
        screen = Screen(cli, "login", "--flow", "password", "--username", "alice@example.test")
        screen.until("discouraged.*\n(.*\n)*Password: ")
        screen.type("wonderland-1\n")
        text = screen.finish()
        assert "wonderland" not in text
        assert "Logged in" in text

    def test_status_is_bold_at_a_terminal_only(self, logged_in):
        text = Screen(logged_in, "status").finish()
        assert "\x1b[1mAlice Liddell" in text
        assert str(logged_in.session_file) in text.replace("\n", "")
        assert "\x1b" not in logged_in.run("status").out
        assert "\x1b" not in Screen(logged_in, "status", NO_COLOR="1").finish()

    @pytest.mark.parametrize(("word", "meant"), [("tokne", "token"), ("stat", "status")])
    def test_a_mistyped_command_is_recognized(self, cli, word, meant):
        assert f"unknown command '{word}': did you mean {meant}?" in cli.run(word, exit=2).err

    def test_enter_opens_nothing_where_no_browser_may_be(self, cli):
        arguments = ["login", "--flow", "device", "--no-browser"]
        screen = Screen(cli, *arguments, BROWSER="true %s")
        screen.until("Waiting")
        screen.type("\x03")
        assert "Enter opens" not in screen.finish(130)


# ---- Stories: Doctor -----------------------------------------------------------------------------


class TestDoctor:
    checks = "settings network tenant clock keys browser_flow callbacks api device_flow"
    checks = f"{checks} refresh_token ports browser directory versions session".split()

    def findings(self, cli, exit=0, **env):  # noqa: A002
        before = sorted(path.name for path in cli.cache.rglob("*"))
        result = cli.run("doctor", "--json", env=env, exit=exit)
        found = json.loads(result.out)
        assert sorted(path.name for path in cli.cache.rglob("*")) == before
        assert result.err == ""
        for one in found:
            assert list(one) == ["check", "status", "message", "hint"]
            assert one["message"].endswith(one["hint"])
            assert one["hint"] or one["status"] == "ok" or one["check"] in ("browser", "secret")
        return {one["check"]: (one["status"], one["message"]) for one in found}

    def test_of_a_healthy_set_up_finds_nothing(self, logged_in, tenant):
        found = self.findings(logged_in)
        assert list(found) == self.checks
        advice = {check for check, (status, _) in found.items() if status != "ok"}
        assert advice <= {"browser"}
        assert "Alice Liddell" in found["session"][1]
        assert ", ".join(tenant.clients["practice-native"].callbacks) in found["callbacks"][1]
        assert found["api"][1] == f"{API} exists"
        text = logged_in.run("doctor").out
        assert text.count("\n") == len(found)

    def test_of_a_healthy_machine_speaks_of_no_user_and_takes_no_token(self, cli, tenant):
        found = self.findings(cli, **machine_environment(tenant))
        assert {status for status, _ in found.values()} == {"ok"}
        checks = "settings network tenant clock secret directory versions session"
        assert list(found) == checks.split()
        assert tenant.access_tokens == {}
        paths = [request.path for request in tenant.requests]
        assert paths == ["/.well-known/openid-configuration", "/oauth/token"]

    def test_tells_what_is_not_set(self, cli):
        found = self.findings(cli, 2, AUTH0_DOMAIN=None)
        assert "AUTH0_DOMAIN" in found["settings"][1]
        assert set(found) == {"directory", "settings"}

    def test_tells_of_a_tenant_that_is_not_there(self, tenant, auth0, hurried, capsys):
        tenant.close()
        assert auth0_cli.main(["doctor", "--json"], defaults=auth0) == 5
        found = {one["check"]: one["status"] for one in json.loads(capsys.readouterr().out)}
        assert found["network"] == "problem"
        local = {"directory", "settings", "network", "ports", "browser", "versions", "session"}
        assert set(found) == local

    def test_advises_the_callback_urls_that_are_not_registered(self, cli, tenant):
        client = tenant.clients["practice-native"]
        first, *others = client.callbacks
        client.callbacks = [first]
        status, message = self.findings(cli)["callbacks"]
        assert status == "advice"
        assert message.startswith(f"{', '.join(others)} not seen to be registered (status 403): ")
        assert message.endswith(", ".join([first, *others]))
        client.callbacks = []
        found = self.findings(cli, AUTH0_CALLBACK_PORTS="0")
        assert "PORT" in found["callbacks"][1]
        assert "api" not in found  # its page was not reached
        tenant.any_loopback_port = True
        assert self.findings(cli, AUTH0_CALLBACK_PORTS="0")["callbacks"][0] == "ok"

    @pytest.mark.parametrize(
        ("status", "location", "finding"),
        [
            (302, "/u/login?state=s", "ok"),
            (302, "{callback}?error=access_denied&error_description=Blocked", "ok"),
            (302, "{callback}?error=x&error_description=Callback+URL+mismatch", "advice"),
            (302, "/error?error_description=Callback%20URL%20mismatch.", "advice"),
            (302, "https://other.example/{callback}", "advice"),
            (302, "{callback}.example/", "advice"),
            (302, "//other.example/u/login", "advice"),
            (400, None, "advice"),
            (429, None, "advice"),
            (503, None, "advice"),
        ],
    )
    def test_follows_no_redirect_of_the_login(
        self, auth0, tenant, capsys, hurried, status, location, finding
    ):
        auth0._arguments["ports"] = 18484
        callback = "http://127.0.0.1:18484/callback"
        headers = {"Location": location and location.format(callback=callback)}
        tenant.break_all("/authorize", status=status, body="<p>", headers=headers)
        auth0_cli.main(["doctor", "--json"], defaults=auth0)
        found = {one["check"]: one for one in json.loads(capsys.readouterr().out)}
        assert found["callbacks"]["status"] == finding
        assert (f"status {status}" in found["callbacks"]["message"]) is (finding == "advice")
        asked = [request for request in tenant.requests if request.path == "/authorize"]
        assert {len(asked[0].params[name]) for name in ("state", "code_challenge")} == {43}
        assert tenant.count("/u/login") == 0

    def test_shows_no_query_of_its_requests(self, cli, tenant):
        err = cli.run("doctor", "-v", env={"AUTH0_ORGANIZATION": "org_1"}).err
        assert "GET /authorize 200 " in err
        assert "org_1" not in err
        (organization,) = {
            request.params.get("organization")
            for request in tenant.requests
            if request.path == "/authorize"
        }
        assert organization == "org_1"

    @pytest.mark.parametrize(
        ("grant_type", "check"),
        [
            ("authorization_code", "browser_flow"),
            ("refresh_token", "refresh_token"),
            ("device_code", "device_flow"),
        ],
    )
    def test_advises_a_grant_that_is_off(self, cli, tenant, grant_type, check):
        tenant.clients["practice-native"].grants.remove(grant_type)
        found = self.findings(cli)
        assert {check, "session"} <= {c for c, (status, _) in found.items() if status == "advice"}
        assert found[check][0] == "advice"
        assert "Grant Types" in found[check][1]
        others = {"browser_flow", "refresh_token", "device_flow", "callbacks"} - {check}
        assert {found[other][0] for other in others} == {"ok"}

    @pytest.mark.parametrize(
        ("how", "code", "words"),
        [
            ("wrong", 4, "check the client ID and secret"),
            ("off", 4, "enable the grant"),
            ("gone", 2, "AUTH0_CLIENT_SECRET"),
        ],
    )
    def test_tells_of_a_machine_that_gets_no_token(self, cli, tenant, how, code, words):
        env = machine_environment(tenant)
        if how == "wrong":
            env["AUTH0_CLIENT_SECRET"] = "another"
        elif how == "off":
            tenant.clients["practice-machine"].grants.clear()
        else:
            cli.run("token", env=env)
            del env["AUTH0_CLIENT_SECRET"]
        found = self.findings(cli, code, **env)
        assert found["secret"][0] == "problem"
        assert words in found["secret"][1]
        assert [check for check, (status, _) in found.items() if status != "ok"] == ["secret"]

    def test_says_that_a_secret_is_set_but_empty(self, cli):
        found = self.findings(cli, AUTH0_CLIENT_SECRET=" ")
        assert "AUTH0_CLIENT_SECRET is set but empty" in found["session"][1]

    def test_names_the_sessions_of_a_newer_version(self, logged_in, tenant):
        logged_in.login("--profile", "other")
        for path in logged_in.cache.glob("*other.json"):
            path.write_text(path.read_text().replace('"version": 1', '"version": 9'))
        status, message = self.findings(logged_in)["versions"]
        assert status == "advice"
        assert "--profile other: update this copy" in message
        found = self.findings(logged_in, 1, AUTH0_PROFILE="other")
        assert found["versions"][0] == "problem"
        assert "session" not in found

    @needs_modes
    def test_tells_once_of_a_directory_that_can_not_be_used(self, logged_in):
        logged_in.cache.chmod(0o777)
        found = self.findings(logged_in, 1)
        assert "can be written by other users" in found["directory"][1]
        assert [check for check, (status, _) in found.items() if status == "problem"] == [
            "directory"
        ]
        assert set(self.checks) - set(found) == {"versions", "session"}

    def test_changes_no_cache_of_a_host_program(self, tenant, cli):
        cache = FileCache(cli.cache)
        auth0 = client(tenant, cache)
        before = dict(auth0._arguments)
        assert auth0_cli.main(["doctor"], defaults=auth0) == 0
        assert cache.repairs
        assert auth0._arguments == before

    def test_tells_of_a_clock_that_is_off(self, cli, tenant):
        date = email.utils.formatdate(time.time() - 7200, usegmt=True)
        path = "/.well-known/openid-configuration"
        about = {"issuer": tenant.issuer}
        tenant.break_all(path, status=200, body=about, headers={"Date": date})
        assert "2 h fast" in self.findings(cli, 2)["clock"][1]

    def test_tells_of_another_issuer(self, cli, tenant):
        path = "/.well-known/openid-configuration"
        tenant.break_all(path, status=200, body={"issuer": "https://other.example/"})
        assert "other.example" in self.findings(cli, 2)["tenant"][1]

    def test_tells_of_keys_that_can_not_be_used(self, cli, tenant):
        tenant.break_all("/.well-known/jwks.json", status=200, body={"keys": []})
        assert "RS256" in self.findings(cli, 2)["keys"][1]

    def test_tells_of_ports_that_are_taken(self, cli):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            found = self.findings(cli, 2, AUTH0_CALLBACK_PORTS=str(port))
        assert f"http://127.0.0.1:{port}/callback" in found["ports"][1]

    @needs_modes
    def test_repairs_nothing(self, logged_in):
        logged_in.session_file.chmod(0o644)
        assert "can be read by other users" in self.findings(logged_in, 1)["session"][1]
        assert stat.S_IMODE(logged_in.session_file.stat().st_mode) == 0o644
        logged_in.session_file.chmod(0o600)
        logged_in.session_file.write_text("{")
        assert "damaged" in self.findings(logged_in, 1)["session"][1]

    def test_tells_of_a_client_that_is_not_known(self, cli):
        found = self.findings(cli, 4, AUTH0_CLIENT_ID="nobody")
        assert [check for check, (status, _) in found.items() if status == "problem"] == [
            "browser_flow"
        ]
        assert "check the client ID" in found["browser_flow"][1]
        assert not {"callbacks", "api", "device_flow", "refresh_token"} & set(found)

    @pytest.mark.parametrize("check", ["api", "device_flow"])
    def test_tells_once_of_an_api_that_is_not_known(self, cli, tenant, check):
        if check == "device_flow":  # with which the API is tested where no callback is registered
            tenant.clients["practice-native"].callbacks.clear()
        found = self.findings(cli, 4, AUTH0_AUDIENCE="https://nowhere.example/")
        assert [check for check, (status, _) in found.items() if status == "problem"] == [check]
        assert "create an API" in found[check][1]

    def test_shows_no_secret(self, logged_in):
        self.findings(logged_in)
        logged_in.start("doctor", "-v").finish()

    def test_advises_where_there_is_no_refresh_token(self, logged_in):
        logged_in.edit(lambda record: record.update(refresh_token=None))
        status, message = self.findings(logged_in)["session"]
        assert status == "advice"
        assert "offline_access" in message

    def test_tells_of_a_tenant_that_shows_a_page(self, cli, tenant):
        tenant.break_all("/.well-known/openid-configuration", body="<html>Wi-Fi</html>")
        assert self.findings(cli, 5)["network"][0] == "problem"

    def test_doctor_tells_that_nothing_can_be_kept(self, cli, tenant, spoilt, capsys):
        assert auth0_cli.main(["doctor", "--json"], defaults=client(tenant, cli.cache)) == 1
        found = {one["check"]: one for one in json.loads(capsys.readouterr().out)}
        assert found["directory"]["status"] == "problem"
        assert spoilt in found["directory"]["message"]
        assert "--cache" in found["directory"]["message"]
        assert "chmod" not in found["directory"]["message"]


# ---- Stories: README -----------------------------------------------------------------------------


class RedisStandIn:
    """As much of a client of Redis as the README uses."""

    def __init__(self):
        self.stored, self.locks = {}, {}

    def get(self, key):
        return self.stored.get(key)

    def set(self, key, value):
        self.stored[key] = value

    def delete(self, key):
        self.stored.pop(key, None)

    def scan_iter(self, pattern):
        return [key.encode() for key in self.stored]

    def lock(self, key, timeout, blocking_timeout):
        return self.locks.setdefault(key, threading.Lock())


class FernetStandIn:
    """No encryption, but it takes back only what was made with the same key."""

    def __init__(self, key):
        self.key = key.encode()

    @staticmethod
    def generate_key():
        return os.urandom(8).hex().encode()

    def encrypt(self, data):
        return self.key + data[::-1]

    def decrypt(self, data):
        if not data.startswith(self.key):
            raise ZeroDivisionError
        return data[len(self.key) :][::-1]


def exit_of(call, *args):
    with pytest.raises(SystemExit) as ended:
        call(*args)
    return ended.value.code


def run_argparse_recipe(code, names, tenant):
    for argv, status in (("auth token", 0), ("auth token --profile nobody", 3)):
        sys.argv = ["mytool", *argv.split()]
        assert exit_of(exec, code, names) == status


def run_click_recipe(code, names, tenant):
    decorator = lambda *_, **__: lambda function: function  # noqa: E731
    names.update(cli=SimpleNamespace(command=decorator), click=SimpleNamespace(argument=decorator))
    exec(code, names)
    for arguments, status in (("token",), 0), (("token", "--profile", "nobody"), 3), ((), 2):
        assert exit_of(names["auth"], arguments) == status


def run_recipe_for_401(code, names, tenant):
    def get(url, auth):
        return SimpleNamespace(status_code=ask(auth(urllib.request.Request(url))))

    exec(code, names)
    for refreshes in (0, 1):
        response = names["get"](SimpleNamespace(get=get), tenant.issuer + "userinfo")
        assert (response.status_code, tenant.count("refresh_token")) == (200, refreshes)
        post(tenant.issuer + "practice/expire")


def run_asyncio_recipe(code, names, tenant):
    async def with_httpx():
        request = urllib.request.Request(tenant.issuer + "userinfo")
        flow = names["Bearer"]().async_auth_flow(request)
        await flow.__anext__()
        statuses = [ask(request)]
        with contextlib.suppress(StopAsyncIteration):
            await flow.asend(SimpleNamespace(status_code=statuses[0]))
            statuses.append(ask(request))
        return statuses

    async def with_aiohttp():
        async def handle(request):
            return SimpleNamespace(status=ask(request), release=lambda: None)

        request = urllib.request.Request(tenant.issuer + "userinfo")
        return (await names["bearer"](request, handle)).status

    async def run():
        assert await with_httpx() == [200]
        post(tenant.issuer + "practice/expire")
        assert await with_httpx() == [401, 200]
        post(tenant.issuer + "practice/expire")
        assert await with_aiohttp() == 200
        assert tenant.count("refresh_token") == 2
        expire_token(names["auth0"])
        assert await asyncio.gather(*(with_aiohttp() for _ in range(20))) == [200] * 20
        assert tenant.count("refresh_token") == 3

    names.update(asyncio=asyncio, httpx=SimpleNamespace(Auth=object))
    exec(code, names)
    asyncio.run(run())


def expire_token(auth0):
    """Let the stored tokens be over."""
    stored = auth0._find()
    record = stored.load()
    for entry in record["tokens"]:
        entry["expires_at"] = time.time() - 1
    stored.save(record)
    auth0._recent.clear()


def run_web_service_recipe(code, names, tenant):
    names["Auth0"] = functools.partial(client, tenant, MemoryCache())
    exec(code, names)
    start, finish = names["start"], names["finish"]
    assert finish("0a") == (403, "no login is pending")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth0_cli, "time", Clock(tenant))
        user_code = re.search("[A-Z]{4}-[A-Z]{4}", start("0a"))[0]
        assert finish("0a") == (202, "nobody has approved the login yet")
        tenant.approve(user_code)
        while (answer := finish("0a"))[0] == 202:
            pass
    assert answer == (200, "Alice Liddell <alice@example.test>")
    assert finish("0b") == (403, "no login is pending")


def run_cache_recipe(code, names, tenant):
    ring = {}
    names["keyring"] = SimpleNamespace(
        get_password=lambda *name: ring.get(name),
        set_password=lambda service, name, text: ring.update({(service, name): text}),
    )
    fernet = SimpleNamespace(InvalidToken=ZeroDivisionError)
    names.update(Fernet=FernetStandIn, cryptography=SimpleNamespace(fernet=fernet))
    exec(code, names)
    redis, directory = RedisStandIn(), f"{names['auth0']._arguments['cache']}-encrypted"
    for cache in (names["RedisCache"](redis), names["EncryptedCache"](directory)):
        auth0 = client(tenant, cache)
        log_in(auth0, tenant)
        assert auth0.get_token(force_refresh=True) in tenant.access_tokens
        for command in ("status", "doctor"):
            assert auth0_cli.main([command], defaults=auth0) == 0
        if not ring:
            auth0.logout()
            assert redis.stored == {}
    (path,) = Path(directory).glob("*.json")
    assert path.read_bytes().startswith(ring["auth0_cli", "key"].encode())
    ring.clear()  # the key is lost
    with pytest.raises(LoginRequired):
        client(tenant, cache).get_token()
    assert list(Path(directory).glob("*.damaged-*"))
    log_in(auth0, tenant)
    assert auth0.get_token() in tenant.access_tokens
    auth0.logout()
    assert not [path for path in Path(directory).iterdir() if path.suffix != ".lock"]


RECIPES = {  # by the beginning of their titles
    "argparse": run_argparse_recipe,
    "click": run_click_recipe,
    "requests or httpx.Client": run_recipe_for_401,
    "httpx.AsyncClient": run_asyncio_recipe,
    "a web service": run_web_service_recipe,
    "caches": run_cache_recipe,
}


def said_if_refused(error, text):
    """Return what a password login says that the tenant refuses like this."""

    def say(cli, tenant):
        body = {"error": error, "error_description": text}
        tenant.break_next("/oauth/token", status=403, body=body)
        err = cli.run(*PASSWORD, stdin="wonderland-1\n", exit=4).err
        assert not err.rstrip().endswith("try again, or ask an administrator of the tenant")
        return err

    return say


def said_by(*arguments, exit=4, **env):  # noqa: A002
    """Return what a command says."""
    return lambda cli, tenant: cli.run(*arguments, exit=exit, env=env).err


def said_with_busy_ports(cli, tenant):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = str(taken.getsockname()[1])
        return cli.run("login", "--flow", "browser", "--port", ports, exit=2).err


def said_after(change, *arguments, exit=4):  # noqa: A002
    """Return what is said after a change of the tenant, with somebody logged in."""

    def say(cli, tenant):
        cli.login()
        change(tenant)
        command = arguments or PASSWORD
        err = cli.run(*command, stdin="wonderland-1\n", exit=exit).err
        tenant.id_claims = None
        tenant.mend()
        return err

    return say


HS256 = {"change": lambda reply: {**reply, "id_token": "eyJhbGciOiJIUzI1NiJ9.e30.AA"}}
MACHINE = {"AUTH0_CLIENT_ID": "practice-machine", "AUTH0_CLIENT_SECRET": MACHINE_SECRET}
DEVICE = ("login", "--flow", "device")
PASSWORD = ("login", "--flow", "password", "--username", "alice@example.test")
SAID = {  # of the README's table; what other tests hold is None
    "no response came from the browser": said_by(
        "login", "--flow", "browser", "--no-browser", "--timeout", "0.1"
    ),
    "Auth0 refused the device flow": said_by(*DEVICE, "--client-id", "practice-nodevice"),
    "There is no refresh token": lambda cli, _: (
        cli.run(*PASSWORD, "--profile", "bare", "--scope", "openid", stdin="wonderland-1\n").err
    ),
    "no API, good for /userinfo only": lambda cli, _: (
        cli.run(
            *PASSWORD, "--profile", "no API", stdin="wonderland-1\n", env={"AUTH0_AUDIENCE": None}
        ).err
    ),
    "No audience parameter was provided": said_by("token", **MACHINE, AUTH0_AUDIENCE=None),
    "Service not enabled within domain": said_by(*DEVICE, "--audience", "https://no.example/"),
    "Client is not authorized to access": None,  # TestClientCredentials
    "access_denied: Unauthorized": said_by(*DEVICE, "--client-id", "nobody"),
    "is signed with HS256, not RS256": said_after(
        lambda tenant: tenant.break_next("/oauth/token", **HS256)
    ),
    "organization is required": said_if_refused(
        "invalid_request", "parameter organization is required for this client"
    ),
    "mfa_required": said_if_refused("mfa_required", "Multifactor authentication required"),
    "consent_required": said_if_refused("consent_required", "Consent required"),
    "user is blocked": said_if_refused("unauthorized", "user is blocked"),
    "limits requests": said_after(
        lambda tenant: tenant.break_all("/oauth/token", status=429), exit=5
    ),
    "is not trusted": None,  # TestCertificates
    "wants a login": None,  # TestProxies
    "not of the form http://HOST:PORT": None,  # TestProxies
    "check the clock of this machine": said_after(
        lambda tenant: setattr(tenant, "id_claims", {"iat": time.time() + 7200})
    ),
    "every callback port is in use": said_with_busy_ports,
    "open this page in a browser on any device": said_by(*DEVICE, "--timeout", "0.1"),
    "nobody is logged in": said_by("token", "--profile", "nobody", exit=3),
    "is set but empty": said_by("token", "--profile", "nobody", exit=3, AUTH0_CLIENT_SECRET=""),
    "the session has expired or was revoked": said_after(
        lambda tenant: tenant.revoke_sessions("alice"), "token", "--force-refresh", exit=3
    ),
}


class TestReadme:
    readme = (Demo.program.parent / "README.md").read_text("utf-8")

    def blocks(self, language, tenant=None):
        text = self.readme
        if tenant:
            text = text.replace("acme.eu.auth0.com", tenant.domain).replace(
                "CLIENT_ID", "practice-native"
            )
            text = text.replace("https://api.example.com", API)
        return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)

    def section(self, title):
        return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", self.readme, re.MULTILINE | re.DOTALL)[
            1
        ]

    def recipes(self):
        """Return the code of each recipe by its title."""
        parts = re.split(r"^# ---- (.+)\n", self.blocks("python")[-1], flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2]))

    def test_its_commands_do_what_it_says(self, cli, tenant):
        (block,) = self.blocks("console", tenant)
        commands = re.findall(r"^\$ python3 auth0_cli\.py ([^|\n]+)", block, re.MULTILINE)
        commands = [command.split() for command in commands]
        assert [command[0] for command in commands] == ["login", "token"]
        cli.login(*commands[0][1:])
        assert cli.run(*commands[1]).out

    def test_its_python_runs(self, cli, tenant, desk, capsys, monkeypatch):
        monkeypatch.setenv("AUTH0_CLI_CACHE", str(cli.cache))
        first, second, _ = self.blocks("python", tenant)
        names = {}
        exec(second, names)
        shown = capsys.readouterr().out
        assert "nobody is logged in\nrun mytool auth login" in shown
        assert "<Session of Alice Liddell" in shown
        exec(second, names)
        assert names["token"] in tenant.access_tokens
        exec(first, names)
        assert names["headers"]["Authorization"][7:] in tenant.access_tokens

    @pytest.mark.parametrize("title", RECIPES)
    def test_its_recipes_run(self, auth0, tenant, monkeypatch, title):
        (code,) = (code for name, code in self.recipes().items() if name.startswith(title))
        log_in(auth0, tenant)
        monkeypatch.setattr(sys, "argv", ["mytool"])
        names = {name: getattr(auth0_cli, name) for name in auth0_cli.__all__}
        RECIPES[title](code, {**names, "argparse": argparse, "auth0": auth0}, tenant)

    def test_no_recipe_of_it_is_left_out(self):
        assert len(self.recipes()) == len(RECIPES)

    def test_it_names_every_variable_and_callback_url(self):
        for name in auth0_cli.ENVIRONMENT.values():
            assert f"`{name}`" in self.readme
        assert f"`{auth0_cli._callback_urls(auth0_cli.DEFAULT_PORTS)}`" in self.readme

    def test_it_names_the_options_of_each_command(self):
        text, commands = self.section("Commands"), set(auth0_cli._COMMANDS)
        rows = re.findall(r"^\| `(\w+)` \| .+ \| (.+) \|$", text, re.MULTILINE)
        said = {command: set(re.findall("`(-.+?)`", options)) for command, options in rows}
        for part in re.search(r"Every command takes .+?\.", text, re.DOTALL)[0].split(";"):
            who, options = re.split(r"\stakes?\s", part)
            names = set(re.findall(r"`(\w+)`", who)) or commands
            for command in commands - names if "all but" in who else names:
                said[command] |= set(re.findall("`(-.+?)`", options))
        for command in commands:
            options = auth0_cli._options_of(command)
            assert said[command] == {option.split()[0] for option in options}
        assert set(said) == commands

    def test_it_says_which_errors_to_try_again(self):
        rows = re.findall(
            r"^\| (\d+) \| (.+) \| .+ \| (\w+)", self.section("Commands"), re.MULTILINE
        )
        said = {
            name: (int(status), again == "yes")
            for status, names, again in rows
            for name in re.findall(r"`(\w+)`", names)
        }
        errors = auth0_cli.Auth0Error.__subclasses__()
        errors = [error for error in errors if error.__name__ in auth0_cli.__all__]
        assert said == {error.__name__: (error.exit_code, error.retryable) for error in errors}

    def test_it_names_the_keys_of_each_event(self, cli, auth0, tenant, hurried, call):
        def approve(reply):
            tenant.approve(reply["user_code"])
            return reply

        text = " ".join(self.section("Python").split())
        log_in(auth0, tenant)
        tenant.break_next("/oauth/device/code", change=approve)
        out = call("login", "--flow", "device", "--json").out
        events = [json.loads(line) for line in out.splitlines()]
        events[-1].update(events[-1]["user"])
        running = cli.start("login", "--flow", "browser", "--no-browser", "--json")
        events.append(running.event())
        refusal = {"status": 429, "headers": {"Retry-After": "900"}}
        tenant.break_all("/oauth/device/code", **refusal)
        events.append(event_of(cli.run("login", "--flow", "device", "--json", exit=5)))
        for event in events:
            keys = re.search(rf"`{event.pop('event')}` \(with (.+?)\)", text)[1]
            assert set(re.findall(r"`(\w+)`", keys)) == set(event)

    def test_its_diagram_holds_no_sign_that_ends_a_line(self):
        (diagram,) = self.blocks("mermaid")
        assert ";" not in diagram

    def test_its_demo_runs(self, scripts):
        assert scripts.demo.returncode == 0, scripts.demo.stderr
        assert "4. Log out" in scripts.demo.stdout

    def test_its_table_of_messages_is_what_is_said(self, cli, tenant, monkeypatch):
        rows = re.findall(
            r"^\| .+? \| (`.+?) \| .+ \|$", self.section("Troubleshooting"), re.MULTILINE
        )
        messages = [message for row in rows for message in re.findall("`(.+?)`", row)]
        assert sorted(messages) == sorted(SAID)
        for message in messages:
            if SAID[message]:
                assert message in SAID[message](cli, tenant), message


# ---- Properties: Many processes ------------------------------------------------------------------


needs_removal = not_on_windows("Windows removes no file that is open")


class TestManyProcesses:
    @pytest.mark.parametrize(
        ("flow", "processes"), [("refresh_token", 16), ("client_credentials", 6)]
    )
    def test_a_stampede_makes_one_request(self, logged_in, tenant, flow, processes):
        cli = logged_in
        if flow == "client_credentials":
            cli.session_file.unlink()
            client = tenant.clients["practice-machine"]
            cli.env.update(AUTH0_CLIENT_ID=client.client_id)
            cli.env.update(AUTH0_CLIENT_SECRET=client.client_secret)
            cli.token()
        cli.expire()
        before = tenant.count(flow)
        tenant.token_delay = 0.4
        started = [cli.start("token") for _ in range(processes)]
        tokens = {running.finish().out for running in started}
        assert len(tokens) == 1
        assert tokens <= {f"{token}\n" for token in tenant.access_tokens}
        assert tenant.count(flow) == before + 1
        tenant.token_delay = 0
        cli.token("--force-refresh")

    def test_threads_share_one_refresh(self, logged_in, tenant, auth0, once_they_wait):
        logged_in.expire()
        once_they_wait(7)
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(auth0.get_token) for _ in range(8)]
            assert len({call.result() for call in calls}) == 1
        assert tenant.count("refresh_token") == 1

    @needs_fork
    def test_a_fork_amid_a_refresh_waits_for_it(self, logged_in, tenant):
        logged_in.expire()
        tenant.hold()
        script = """if True:
            import os, sys, threading
            from auth0_cli import Auth0
            auth0 = Auth0()
            thread = threading.Thread(target=auth0.get_token)
            thread.start()
            sys.stdin.readline()
            child = os.fork()
            if child:
                print("forked", flush=True)
            print(auth0.get_token(), flush=True)
            if child == 0:
                os._exit(0)
            thread.join()
            sys.exit(os.waitpid(child, 0)[1])"""
        running = logged_in.python(script, flags=["-W", "ignore"])
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        running.say("now")
        assert running.out.line() == "forked\n"
        tenant.release()
        first, second = running.finish().out.split()[1:]
        assert first == second
        assert tenant.count("refresh_token") == 1

    @pytest.mark.parametrize("how", ["logout", "unlink"])
    def test_a_refresh_in_flight_does_not_undo_a_logout(self, logged_in, tenant, how):
        session = logged_in.session_file
        tenant.hold()
        running = logged_in.start("token", "--force-refresh")
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        if how == "unlink":
            session.unlink()
            tenant.release()
        else:
            with ThreadPoolExecutor() as pool:
                logout = pool.submit(client(tenant, logged_in.cache).logout)
                tenant.release()
                logout.result(20)
        running.finish()
        assert not session.exists()
        logged_in.run("token", exit=3)

    def test_a_refresh_in_flight_does_not_undo_a_login(self, logged_in, tenant, auth0):
        tenant.hold()
        running = logged_in.start("token", "--force-refresh")
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        with ThreadPoolExecutor() as pool:
            login = pool.submit(log_in, auth0, tenant, "bob")
            tenant.wait_for(lambda: tenant.count("password"))
            tenant.release()
            login.result(20)
        running.finish()
        assert auth0.session().user["sub"] == "auth0|bob"
        logged_in.token("--force-refresh")

    def test_what_a_killed_process_held_is_free(self, logged_in, tenant):
        tenant.leeway = 60
        tenant.hold()
        running = logged_in.start("token", "--force-refresh")
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        running.process.kill()
        running.finish(None)
        tenant.release()
        assert logged_in.token("--force-refresh") in tenant.access_tokens

    def test_a_valid_token_and_the_status_wait_for_no_lock(self, logged_in):
        with FileCache(logged_in.cache).lock(logged_in.session_file.stem, 5):
            assert logged_in.token()
            assert logged_in.status()

    def test_of_many_who_force_a_refresh_one_makes_it(self, logged_in, tenant, once_they_wait):
        once_they_wait(3)
        with ThreadPoolExecutor(4) as pool:
            clients = [client(tenant, logged_in.cache) for _ in range(4)]
            calls = [pool.submit(one.get_token, force_refresh=True) for one in clients]
            assert len({call.result() for call in calls}) == 1
        assert tenant.count("refresh_token") == 1

    @table(
        "how",
        {
            "429": {"status": 429, "headers": {"Retry-After": "60"}},
            "429 of Auth0": {"status": 429, "headers": {"x-ratelimit-reset": "in 60 s"}},
            "503": {"status": 503, "headers": {"Retry-After": "60"}},
        },
    )
    def test_all_wait_as_long_as_the_server_asks_one_of_them(self, logged_in, tenant, auth0, how):
        if "x-ratelimit-reset" in how["headers"]:
            how["headers"]["x-ratelimit-reset"] = str(int(time.time()) + 60)
        logged_in.expire()
        tenant.break_all("/oauth/token", **how)
        started = [logged_in.start("token") for _ in range(4)]
        started.append(logged_in.start("token", "--force-refresh"))
        with ThreadPoolExecutor(8) as pool:
            clients = [auth0, client(tenant, logged_in.cache)] * 4
            calls = [
                pool.submit(one.get_token, force_refresh=i > 3) for i, one in enumerate(clients)
            ]
        errors = [call.exception() for call in calls]
        assert {type(error) for error in errors} == {NetworkError}
        assert all(30 < error.retry_after <= 61 for error in errors)
        said = {running.finish(5).err for running in started}
        assert len({*said, *(f"auth0_cli: {error}\n" for error in errors)}) == 1
        tenant.mend()
        logged_in.run("token", exit=5)
        assert tenant.count("refresh_token") == 1
        (state,) = logged_in.cache.glob("*.state")
        failure = json.loads(state.read_text())
        state.write_text(json.dumps({**failure, "until": time.time() - 1}))
        assert logged_in.token() in tenant.access_tokens
        assert not state.exists()
        assert logged_in.token("--force-refresh")

    @pytest.mark.parametrize("how", [{"status": 503}, {"close": "before"}], ids=["503", "closed"])
    def test_a_failure_without_a_time_to_wait_makes_no_storm(
        self, logged_in, tenant, auth0, hurried, how
    ):
        logged_in.expire()
        tenant.break_all("/oauth/token", **how)
        for _ in range(100):  # the clock stands still but for the waits between two tries
            with pytest.raises(NetworkError):
                auth0.get_token()
        requests = tenant.count("refresh_token")
        assert requests <= 10
        hurried.sleeps.append(61)
        with pytest.raises(NetworkError):
            auth0.get_token()
        assert tenant.count("refresh_token") > requests
        tenant.mend()
        hurried.sleeps.append(61)
        assert auth0.get_token() in tenant.access_tokens
        assert not list(logged_in.cache.glob("*failure.state"))

    def test_the_wait_after_a_failure_grows_up_to_half_a_minute(
        self, logged_in, tenant, auth0, hurried
    ):
        logged_in.expire()
        tenant.break_all("/oauth/token", status=503)
        for failures, wait in enumerate((0, 0, 1, 2, 4, 8, 16, 32, 32, 32), 1):
            with pytest.raises(NetworkError):
                auth0.get_token()
            if wait:  # else the next call is a request
                with pytest.raises(NetworkError) as caught:
                    auth0.get_token()
                assert math.ceil(caught.value.retry_after) == wait
            assert tenant.count("refresh_token") == failures
            hurried.sleep(wait)
        hurried.sleep(auth0_cli.MAX_WAIT + 1)  # then it begins anew
        for more in (1, 2):
            with pytest.raises(NetworkError):
                auth0.get_token()
            assert tenant.count("refresh_token") == failures + more

    def test_no_server_makes_anybody_wait_for_more_than_an_hour(self, logged_in, tenant, auth0):
        logged_in.expire()
        tenant.break_all("/oauth/token", status=429, headers={"Retry-After": "99999"})
        for _ in range(2):
            with pytest.raises(NetworkError) as caught:
                auth0.get_token()
        assert tenant.count("refresh_token") == 1
        assert 3500 < caught.value.retry_after <= 3600

    def test_those_who_waited_for_a_request_share_its_failure(
        self, logged_in, tenant, auth0, once_they_wait
    ):
        logged_in.expire()
        once_they_wait(8)
        tenant.break_all("/oauth/token", status=503)
        with ThreadPoolExecutor(9) as pool:
            first = pool.submit(auth0.get_token)
            tenant.wait_for(lambda: tenant.count("refresh_token"))
            others = [client(tenant, logged_in.cache) for _ in range(8)]
            calls = [first, *(pool.submit(one.get_token) for one in others)]
        assert {type(call.exception()) for call in calls} == {NetworkError}
        assert tenant.count("refresh_token") == 1

    def test_a_valid_token_is_served_while_the_server_asks_to_wait(self, logged_in, tenant):
        token = logged_in.token()
        logged_in.edit(expire_in(30))
        tenant.break_all("/oauth/token", status=429, headers={"Retry-After": "60"})
        for _ in range(3):
            assert logged_in.token() == token
        assert tenant.count("refresh_token") == 1

    @pytest.mark.parametrize("until", [9e15, "soon"])
    def test_a_damaged_failure_stops_nobody_for_long(self, logged_in, call, hurried, until, tenant):
        note = {"at": time.time() - 1, "until": until, "count": 1, "message": "x", "error": None}
        key = logged_in.session_file.stem
        FileCache(logged_in.cache).write(f"{key}~failure", json.dumps(note).encode())
        hurried.sleep(auth0_cli.MAX_WAIT + 60)
        logged_in.expire()
        assert call("token", "--force-refresh").out.strip() in tenant.access_tokens

    def test_a_failure_ends_with_the_session(self, logged_in, tenant, auth0):
        logged_in.expire()
        tenant.break_next("/oauth/token", status=429, headers={"Retry-After": "60"})
        logged_in.run("token", exit=5)
        log_in(auth0, tenant, "bob")
        assert logged_in.token("--force-refresh") in tenant.access_tokens
        tenant.break_next("/oauth/token", status=429, headers={"Retry-After": "60"})
        logged_in.run("token", "--force-refresh", exit=5)
        logged_in.run("logout")
        assert not list(logged_in.cache.glob("*failure.state"))

    @pytest.mark.parametrize(
        "failure",
        [
            b"",
            b"{",
            b"[]",
            b'{"at": 1}',
            b'{"at": 1e400, "until": 1e400, "count": 1e400, "message": ""}',
            b'{"at": %s, "until": 0, "count": 0, "message": ""}' % (b"9" * 400),
            b'{"at": [], "until": {}, "count": null, "message": 7}',
            b"\xff" * 100,
        ],
        ids=range(8),
    )
    def test_a_damaged_failure_costs_nothing(self, logged_in, tenant, failure):
        name = f"{logged_in.session_file.stem}~failure.state"
        path = logged_in.cache / name
        path.write_bytes(failure)
        path.chmod(0o600)
        assert logged_in.token("--force-refresh") in tenant.access_tokens

    @needs_removal
    def test_a_lock_file_that_is_removed_amid_a_refresh_splits_no_lock(self, logged_in, tenant):
        logged_in.expire()
        (lock,) = logged_in.cache.glob("*.lock")
        os.utime(lock, (1, 1))
        tenant.hold()
        first = logged_in.start("token")
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        assert lock.stat().st_mtime > 1000  # cleaners of old files see that it is in use
        lock.unlink()
        others = [logged_in.start("token") for _ in range(3)]
        time.sleep(0.3)  # most of them have come to the lock, or whatever they take for it
        tenant.release()
        assert len({running.finish().out for running in (first, *others)}) == 1
        assert tenant.count("refresh_token") == 1
        assert logged_in.token("--force-refresh") in tenant.access_tokens

    @needs_removal
    def test_a_lock_that_was_replaced_before_it_was_taken_is_taken_anew(self, logged_in):
        cache, key = FileCache(logged_in.cache), logged_in.session_file.stem
        true, replaced = auth0_cli._try_file_lock, []

        def replace(fd, lock):
            taken = true(fd, lock)
            if lock and not replaced:
                replaced.append(1)
                (logged_in.cache / f"{key}.lock").unlink()
            return taken

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(auth0_cli, "_try_file_lock", replace)
            with cache.lock(key, 5):
                script = f"import fcntl; fcntl.flock(open({str(cache.path(key, '.lock'))!r}), 6)"
                done = logged_in.python(script).finish(1)
        assert "BlockingIOError" in done.err


class TestSoak:
    """Random moments: AUTH0_CLI_SOAK=1000 makes a thousand kills of the few."""

    kills = int(os.environ.get("AUTH0_CLI_SOAK") or 6)
    stampedes = max(1, kills // 10)

    def seeded(self):
        seed = secrets.randbits(32)
        print(f"the seed is {seed}")  # shown when the test fails
        return random.Random(seed)

    def test_processes_that_are_killed_at_any_moment_lose_nothing(self, logged_in, tenant):
        moments = self.seeded()
        tenant.leeway = 3600  # a rotated token whose answer was lost with its process stays good
        tenant.token_delay = 0.05
        for _ in range(self.kills):
            logged_in.expire()
            before = tenant.count("refresh_token")
            started = [logged_in.start("token") for _ in range(3)]
            victim = moments.choice(started)
            with contextlib.suppress(subprocess.TimeoutExpired):
                victim.process.wait(moments.uniform(0, 0.4))
            victim.process.kill()
            survivors = [one.finish() for one in started if one is not victim]
            victim.process.wait()
            assert len({survivor.out for survivor in survivors}) == 1
            assert 1 <= tenant.count("refresh_token") - before <= 2
            record = json.loads(logged_in.session_file.read_text())
            assert record["refresh_token"] == list(tenant.refresh_tokens)[-1]
            for path in logged_in.cache.iterdir():
                assert has_mode(path, 0o600)
            assert len(list(logged_in.cache.iterdir())) <= 3  # session, lock, what was cut off
        assert logged_in.token()

    def test_stampedes_again_and_again_make_one_request_each(self, logged_in, tenant):
        for _ in range(self.stampedes):
            logged_in.expire()
            before = tenant.count("refresh_token")
            started = [logged_in.start("token") for _ in range(8)]
            assert len({running.finish().out for running in started}) == 1
            assert tenant.count("refresh_token") == before + 1


# ---- Properties: Signals during a refresh --------------------------------------------------------


class SimpleHandler:
    """A signal handler that is an object."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *_):
        self.function()

    def handle(self, number, frame):
        self.function()


class TestSignals:
    """What a signal may do to a refresh: nothing."""

    @pytest.mark.parametrize(
        ("number", "code"),
        [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=needs_signals)],
    )
    def test_a_signal_amid_the_exchange_leaves_no_session(self, cli, tenant, number, code):
        tenant.break_next("/oauth/token", drip=5)
        arguments = ("login", "--flow", "browser", "--no-browser", "--json")
        running = cli.start(*arguments, stdin=HEARS_CTRL_C)
        location = urlsplit(answer_of(tenant, running.event()["url"]))
        head = f"GET {location.path}?{location.query} HTTP/1.1\r\nHost: {location.netloc}\r\n\r\n"
        browser = send(location.port, head.encode())
        tenant.wait_for(lambda: tenant.count("/oauth/token"))
        send_signal(running.process, number)
        end = fetch(f"http://{location.netloc}{receive(browser).headers['Location']}")
        assert "You are not logged in" in end.text
        result = running.finish(code)
        assert "Traceback" not in result.err
        assert result.out.count("\n") == 1
        assert not cli.cache.exists() or not list(cli.cache.glob("*.json"))

    @pytest.mark.parametrize(
        ("arguments", "number", "code"),
        [
            (["token", "--force-refresh"], signal.SIGINT, 130),
            pytest.param(["token"], signal.SIGTERM, 143, marks=needs_signals),
            pytest.param(["token"], getattr(signal, "SIGHUP", 1), 129, marks=needs_signals),
        ],
    )
    def test_a_signal_amid_a_refresh_ends_it_once_its_answer_is_kept(
        self, logged_in, tenant, arguments, number, code
    ):
        logged_in.expire()
        tenant.hold()
        running = logged_in.start(*arguments, stdin=HEARS_CTRL_C)
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        send_signal(running.process, number)
        tenant.release()
        result = running.finish(code)
        assert (result.out, "Traceback" in result.err) == ("", False)
        assert list(logged_in.cache.glob("*.tmp")) == []
        assert logged_in.token() in tenant.access_tokens
        assert tenant.count("refresh_token") == 1
        assert logged_in.token("--force-refresh") in tenant.access_tokens

    @needs_signals
    def test_a_signal_that_a_host_program_handles_stays_its_own(
        self, logged_in, auth0, tenant, capsys
    ):
        signals = []
        before = signal.signal(signal.SIGHUP, lambda number, _: signals.append(number))
        try:
            hang_up = functools.partial(os.kill, os.getpid(), signal.SIGHUP)
            tenant.break_next("/oauth/token", change=lambda reply: hang_up() or reply)
            code = auth0_cli.main(["token", "--force-refresh"], defaults=auth0)
        finally:
            signal.signal(signal.SIGHUP, before)
        assert (code, signals) == (0, [signal.SIGHUP])
        assert capsys.readouterr().out.strip() in tenant.access_tokens

    @needs_signals
    def test_a_second_signal_ends_a_refresh_at_once(self, logged_in, tenant):
        logged_in.expire()
        before = logged_in.session_file.read_bytes()
        tenant.break_next("/oauth/token", drip=5)
        running = logged_in.start("token", "-v")
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        while running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(0.2)
        assert running.finish(143).out == ""
        assert logged_in.session_file.read_bytes() == before

    def test_a_program_that_goes_on_after_a_signal_has_the_refreshed_session(
        self, logged_in, tenant
    ):
        script = (
            "import sys, auth0_cli\n"
            "try:\n"
            "    auth0_cli.get_token()\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted', flush=True)\n"
            "sys.stdin.read()"
        )
        logged_in.expire()
        tenant.hold()
        program = logged_in.python(script)
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        send_signal(program.process, signal.SIGINT)
        tenant.release()
        assert program.out.line() == "interrupted\n"
        assert logged_in.token() in tenant.access_tokens
        program.finish()
        assert tenant.count("refresh_token") == 1

    @table(
        "amid, handler",
        {
            "login": ("login", lambda fail: lambda number, frame: fail()),
            "logout": ("logout", lambda fail: lambda number, frame: fail()),
            "token": ("token", lambda fail: lambda number, frame: fail()),
            "method": ("token", lambda fail: SimpleHandler(fail).handle),
            "object": ("token", SimpleHandler),
            "partial": (
                "token",
                lambda fail: functools.partial(SimpleHandler.handle, SimpleHandler(fail)),
            ),
            "of one call": (
                "token",
                lambda fail: lambda number, _: (signal.signal(number, signal.SIG_DFL), fail()),
            ),
        },
    )
    def test_what_a_signal_handler_raises_amid_a_save_reaches_the_caller(
        self, logged_in, auth0, tenant, monkeypatch, handler, amid
    ):
        raised = TimeoutError("of the handler")  # an OSError, as a disk's would be

        def fail():
            raise raised

        def interrupted(*_):
            signal.raise_signal(signal.SIGINT)

        use = {
            "login": lambda: auth0.login(flow="password", username="bob", password="builder-1"),
            "token": machine(tenant.domain, logged_in.cache).get_token,
            "logout": auth0.logout,
        }[amid]
        before = signal.signal(signal.SIGINT, handler(fail))
        try:
            with monkeypatch.context() as patch:
                patch.setattr(os, "unlink" if amid == "logout" else "replace", interrupted)
                with pytest.raises(TimeoutError) as caught:
                    use()
        finally:
            signal.signal(signal.SIGINT, before)
        assert caught.value is raised
        for file in logged_in.cache.glob("*.json"):
            with FileCache(logged_in.cache).lock(file.stem, 0):
                pass
        logged_in.run("token", "--force-refresh", exit=3 if amid == "logout" else 0)

    def test_an_error_of_a_cache_itself_is_no_signal(self, tenant):
        cache = DictCache()
        auth0 = client(tenant, cache)
        log_in(auth0, tenant)
        cache.read = lambda _: 1 / 0
        with pytest.raises(CacheError, match="ZeroDivisionError"):
            auth0.get_token()

    @needs_signals
    @pytest.mark.parametrize("first", ["SIGTERM", "SIGCHLD"])
    def test_each_signal_amid_a_refresh_reaches_its_handler(
        self, logged_in, auth0, tenant, installed, first
    ):
        """SIGCHLD, as of a child that ends, takes no effect away from the one that ends us."""
        calls = []
        installed(signal.SIGCHLD, lambda number, frame: calls.append((number, frame.f_lineno > 0)))
        installed(signal.SIGTERM, lambda number, _: sys.exit(7))
        numbers = dict.fromkeys((getattr(signal, first), signal.SIGTERM, signal.SIGCHLD))

        def interrupt(reply):
            for number in numbers:
                os.kill(os.getpid(), number)
                time.sleep(0.02)  # so that the main thread handles one after the other
            return reply

        tenant.break_next("/oauth/token", change=interrupt)
        with pytest.raises(SystemExit) as caught:
            auth0.get_token(force_refresh=True)
        assert caught.value.code == 7
        assert calls == [(signal.SIGCHLD, True)]
        assert tenant.count("refresh_token") == 1
        assert logged_in.token("--force-refresh") in tenant.access_tokens  # the new one is kept

    @needs_signals
    def test_a_timer_that_goes_off_again_and_again_loses_nothing(
        self, logged_in, auth0, tenant, installed
    ):
        ticks, frames = [], []

        def tick(number, frame):
            ticks.append(number)
            frames.append(frame.f_lineno)

        installed(signal.SIGALRM, tick)
        tenant.token_delay = 0.1
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        try:
            for _ in range(3):
                assert auth0.get_token(force_refresh=True) in tenant.access_tokens
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert len(ticks) > 3
        assert signal.getsignal(signal.SIGALRM) is tick

    @pytest.mark.parametrize(
        ("at", "other"),
        [("begin", "SIGINT"), ("end", "SIGCHLD" if POSIX else "SIGBREAK")],
        ids=["begin", "end"],
    )
    def test_a_handler_that_raises_while_signals_are_held_or_freed_takes_no_other_away(
        self, logged_in, auth0, tenant, installed, monkeypatch, at, other
    ):
        class Own(Exception):
            pass

        def fail(*_):
            raise Own

        calls, replaced, true, other = [], [], signal.signal, getattr(signal, other)
        installed(other, lambda *_: calls.append(1))
        installed(signal.SIGTERM, fail)

        def replace(number, handler):
            """One of these numbers is lower, and so handled before, and the other higher."""
            if at == "begin" and number == signal.SIGTERM:
                fail()  # as its handler does, which is not replaced yet
            result = true(number, handler)
            replaced.append(number)
            if at == "end" and replaced.count(number) == 2 and number == signal.SIGTERM:
                signal.raise_signal(number)
            return result

        with monkeypatch.context() as patch:
            patch.setattr(signal, "signal", replace)
            with pytest.raises(Own):
                auth0.get_token(force_refresh=True)
        for count in (1, 2):
            signal.raise_signal(other)
            assert len(calls) == count
        with pytest.raises(Own):
            signal.raise_signal(signal.SIGTERM)
        assert tenant.count("refresh_token") == (0 if at == "begin" else 1)
        assert logged_in.token("--force-refresh") in tenant.access_tokens

    @needs_signals
    def test_an_event_loop_s_signal_amid_a_refresh_is_its_own_once(self, logged_in, auth0, tenant):
        calls = []

        async def run():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, calls.append, 1)
            hang_up = functools.partial(os.kill, os.getpid(), signal.SIGHUP)
            tenant.break_next("/oauth/token", change=lambda reply: hang_up() or reply)
            token = auth0.get_token(force_refresh=True)
            while not calls:
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            loop.remove_signal_handler(signal.SIGHUP)
            return token

        assert asyncio.run(run()) in tenant.access_tokens
        assert calls == [1]

    def test_a_daemon_thread_s_refresh_is_kept_when_the_program_ends(
        self, logged_in, tenant, tmp_path
    ):
        end = tmp_path / "end"
        script = f"""if True:
            import os, time, threading, auth0_cli
            threading.Thread(target=auth0_cli.get_token, daemon=True).start()
            while not os.path.exists({str(end)!r}):
                time.sleep(0.01)"""
        logged_in.expire()
        tenant.hold()
        program = logged_in.python(script)
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        end.touch()
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for the thread
            program.process.wait(0.3)
        tenant.release()
        program.finish()
        assert logged_in.token("--force-refresh") in tenant.access_tokens
        assert tenant.count("refresh_token") == 2

    @needs_fork
    @needs_signals
    def test_a_child_that_is_forked_amid_a_refresh_gets_its_signals(self, logged_in, tenant):
        script = """if True:
            import os, signal, sys, threading, auth0_cli
            signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
            def fork():
                sys.stdin.readline()
                if os.fork() == 0:
                    signal.raise_signal(signal.SIGTERM)
                    os._exit(7)
            threading.Thread(target=fork).start()
            auth0_cli.get_token()
            print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)"""
        logged_in.expire()
        tenant.hold()
        program = logged_in.python(script, flags=["-W", "ignore"])
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        program.say("now")
        tenant.release()
        assert program.out.line() == "9\n"
        program.finish()

    @needs_fork
    @needs_signals
    def test_a_child_that_is_forked_amid_a_refresh_gets_no_signal_of_its_parent(self, logged_in):
        script = """if True:
            import os, signal, auth0_cli
            calls, children = [], []
            signal.signal(signal.SIGTERM, lambda *_: calls.append(1))
            def fork(_):
                signal.raise_signal(signal.SIGTERM)
                children.append(os.fork())
            auth0_cli.get_token(force_refresh=True, trace=fork)
            if children == [0]:
                os._exit(len(calls))
            print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]), len(calls))"""
        program = logged_in.python(script, flags=["-W", "ignore"])
        assert program.finish().out == "0 1\n"

    @needs_signals
    @pytest.mark.skipif(
        sys.version_info >= (3, 13),
        reason="3.13 calls the handler within the trace function, where no signal comes else",
    )
    def test_a_handler_that_raises_at_any_bytecode_of_the_delay_leaves_no_trace(self, installed):
        class Own(Exception):
            pass

        def stop(*_):
            raise Own

        count = target = 0

        def trace(frame, event, _):
            nonlocal count
            if frame.f_code.co_filename != auth0_cli.__file__:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                count += 1
                if count == target:
                    os.kill(os.getpid(), signal.SIGTERM)
            return trace

        installed(signal.SIGTERM, stop)
        handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # else 3.12 traces no bytecode anywhere
        total = 1
        while target <= total:
            sys.settrace(trace)
            try:
                with auth0_cli._DelayedSignals():
                    pass
            except Own:
                pass
            finally:
                sys.settrace(before)
            total, count, target = max(total, count), 0, target + 1
            assert handlers == {number: signal.getsignal(number) for number in handlers}
            assert not auth0_cli._refreshing
        assert total > 300

    @pytest.mark.parametrize(("hangs", "seconds"), [(False, 0), (True, 5)])
    def test_the_end_of_a_program_waits_for_a_thread_s_refresh_alone_and_not_for_long(
        self, logged_in, tenant, tmp_path, hangs, seconds
    ):
        first, second = tmp_path / "first", tmp_path / "second"
        script = f"""if True:
            import atexit, os, threading, time, types, auth0_cli
            seconds, main = [], threading.main_thread()
            def monotonic():
                is_main = threading.current_thread() is main
                return len(seconds) if is_main else time.monotonic()
            clock = types.SimpleNamespace(time=time.time, monotonic=monotonic)
            atexit.register(lambda: print(len(seconds)))
            def refresh():
                auth0_cli.get_token(force_refresh=True)
                print("refreshed", flush=True)
            for path in ({str(first)!r}, {str(second)!r}):
                threading.Thread(target=refresh, daemon=True).start()
                while not os.path.exists(path):
                    time.sleep(0.01)
            clock.sleep = lambda _: seconds.append(1)
            auth0_cli.time = clock"""
        program = logged_in.python(script)
        assert program.out.line() == "refreshed\n"
        if hangs:
            tenant.hold()
        first.touch()
        tenant.wait_for(lambda: tenant.count("refresh_token") == 2)
        if not hangs:
            assert program.out.line() == "refreshed\n"
        second.touch()
        assert program.finish().out.splitlines()[-1] == str(seconds)
        tenant.release()

    def test_a_handler_that_calls_the_one_before_it_may_come_amid_a_refresh(
        self, logged_in, tenant, installed
    ):
        def come(_):
            before = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, lambda *a: (calls.append("its own"), before(*a)))

        calls = []
        installed(signal.SIGINT, lambda *_: calls.append("the one before"))
        client(tenant, logged_in.cache, trace=come).get_token(force_refresh=True)
        signal.raise_signal(signal.SIGINT)
        assert calls == ["its own", "the one before"]


# ---- Properties: Locks ---------------------------------------------------------------------------


class TestLocks:
    """One at a time, and nothing that stays locked."""

    def test_a_wait_for_the_lock_that_was_interrupted_refreshes_nothing_later(
        self, logged_in, tenant
    ):
        script = (
            "import sys, threading, auth0_cli\n"
            "told, lock = [], auth0_cli._try_file_lock\n"
            "def tell(fd, wanted):\n"
            "    got = lock(fd, wanted)\n"
            "    if wanted and not got and not told:\n"
            "        told.append(print('waits', flush=True))\n"
            "    return got\n"
            "auth0_cli._try_file_lock = tell\n"
            "try:\n"
            "    auth0_cli.get_token()\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted', flush=True)\n"
            "sys.stdin.readline()\n"
            "for thread in threading.enumerate():\n"
            "    if thread is not threading.main_thread():\n"
            "        thread.join(20)\n"
        )
        logged_in.expire()
        cache = FileCache(logged_in.cache)
        with cache.lock(cache.list()[0], 5):
            program = logged_in.python(script)
            assert program.out.line() == "waits\n"
            send_signal(program.process, signal.SIGINT)
            assert program.out.line() == "interrupted\n"
        program.finish()
        assert tenant.count("refresh_token") == 0

    @pytest.mark.parametrize("kind", [FileCache, MemoryCache])
    def test_a_lock_that_is_never_released_is_given_up(self, cli, kind):
        cache = FileCache(cli.cache) if kind is FileCache else MemoryCache()
        another = FileCache(cli.cache) if kind is FileCache else cache
        with (
            cache.lock("a~b~c", 5),
            pytest.raises(NetworkError, match="try again"),
            another.lock("a~b~c", 0.05),
        ):
            raise AssertionError("two have the lock")
        with another.lock("a~b~c", 0.05):
            pass

    @pytest.mark.parametrize("kind", [FileCache, MemoryCache])
    def test_who_gives_a_lock_up_leaves_it_to_who_has_it(self, cli, kind):
        cache = FileCache(cli.cache) if kind is FileCache else MemoryCache()
        with cache.lock("a~b~c", 5):
            for _ in range(2):
                with pytest.raises(NetworkError), cache.lock("a~b~c", 0):
                    raise AssertionError("two have the lock")

    @pytest.mark.parametrize("is_terminal", [True, False])
    def test_a_long_wait_for_a_lock_is_explained_once_at_a_terminal(
        self, logged_in, call, hurried, monkeypatch, is_terminal
    ):
        cache = FileCache(logged_in.cache)
        lock = cache.lock(cache.list()[0], 5)
        lock.__enter__()
        hurried.then[1000] = lambda: lock.__exit__(None, None, None)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
        said = call("token", "--force-refresh").err
        assert said == "waiting for another process that is busy with this session\n" * is_terminal

    def test_a_lock_of_a_stopped_process_is_given_up_and_of_a_killed_one_taken(self, cli):
        script = (
            "import sys, auth0_cli\n"
            "with auth0_cli.FileCache(sys.argv[1]).lock('a~b~c', 5):\n"
            "    print('locked', flush=True)\n"
            "    sys.stdin.read()"
        )
        holder = cli.python(script, str(cli.cache))
        assert holder.out.line() == "locked\n"
        if POSIX:
            holder.process.send_signal(signal.SIGSTOP)
        with pytest.raises(NetworkError), FileCache(cli.cache).lock("a~b~c", 0.05):
            raise AssertionError("two have the lock")
        holder.stop()
        with FileCache(cli.cache).lock("a~b~c", 5):
            pass

    @pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
    def test_a_file_system_without_locks_is_named(
        self, logged_in, auth0, capsys, monkeypatch, number
    ):
        def lock(*_):
            raise OSError(number, os.strerror(number))

        name = "fcntl.flock" if POSIX else "msvcrt.locking"
        monkeypatch.setattr(name, lock)
        code = auth0_cli.main(["token", "--force-refresh"], defaults=auth0)
        assert code in (0, 1)  # done without a lock, or refused
        assert re.fullmatch(r"auth0_cli: .+\n", capsys.readouterr().err)

    def test_a_timeout_of_a_signal_handler_amid_the_lock_refreshes_nothing(
        self, logged_in, auth0, tenant, installed, monkeypatch
    ):
        def expire(*_):
            raise TimeoutError

        def lock(*arguments):
            signal.raise_signal(signal.SIGINT)
            true(*arguments)

        installed(signal.SIGINT, expire)
        module, name = (fcntl, "flock") if POSIX else (importlib.import_module("msvcrt"), "locking")
        true = getattr(module, name)
        monkeypatch.setattr(module, name, lock)
        with pytest.raises(TimeoutError):
            auth0.get_token(force_refresh=True)
        assert tenant.count("refresh_token") == 0
        monkeypatch.undo()
        assert auth0.get_token(force_refresh=True) in tenant.access_tokens

    @not_on_windows("a session file is not locked there")
    def test_a_timeout_of_a_signal_handler_as_the_session_file_is_opened_is_not_lost(
        self, logged_in, auth0, tenant, installed, monkeypatch
    ):
        def expire(*_):
            raise TimeoutError

        def open_file(path, flags, *mode):
            if str(path).endswith(".json") and flags & os.O_RDWR:
                signal.raise_signal(signal.SIGINT)
            return true(path, flags, *mode)

        installed(signal.SIGINT, expire)
        true = os.open
        monkeypatch.setattr(os, "open", open_file)
        with pytest.raises(TimeoutError):
            auth0.get_token(force_refresh=True)
        assert tenant.count("refresh_token") == 0
        monkeypatch.undo()
        assert auth0.get_token(force_refresh=True) in tenant.access_tokens

    def test_a_lock_that_is_denied_is_not_done_without(self, logged_in, tenant, call, monkeypatch):
        real = os.open

        def denied(path, *args, **more):
            if str(path).endswith(".lock"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return real(path, *args, **more)

        monkeypatch.setattr(os, "open", denied)
        assert "Permission denied" in call("token", "--force-refresh", code=1).err
        assert tenant.count("refresh_token") == 0

    @pytest.mark.filterwarnings("ignore:unclosed file")  # what closes it is that nobody has it
    def test_an_exception_at_any_bytecode_of_a_lock_leaves_it_free(self, logged_in, auth0):
        class Own(Exception):
            pass

        stored = auth0._find()
        (lock_file,) = logged_in.cache.glob("*.lock")
        count = target = 0

        def trace(frame, event, _):
            nonlocal count
            if frame.f_code.co_filename != auth0_cli.__file__:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                count += 1
                if count == target:
                    raise Own
            return trace

        def use():
            with stored.lock(5):
                pass

        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # else 3.12 traces no bytecode anywhere
        total = 1
        while target <= total:
            sys.settrace(trace)
            try:
                use()
            except Own:
                pass
            finally:
                sys.settrace(before)
            total, count, target = max(total, count), 0, target + 1
            with stored.lock(0):  # for the threads of this process
                pass
            with open(lock_file) as file:  # and for other processes
                assert auth0_cli._try_file_lock(file.fileno(), True)
        assert total > 300

    @needs_fork
    def test_a_fork_amid_a_lock_keeps_it_for_the_parent_alone(self, logged_in, auth0):
        stored = auth0._find()
        (path,) = logged_in.cache.glob("*.lock")
        lock = stored.lock(5)
        lock.__enter__()
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with contextlib.suppress(NetworkError), stored.lock(0):
                    os._exit(1)  # taken twice
                lock.__exit__(None, None, None)  # as a `with` does that was entered by the parent
                os.write(tell, b"free")
                time.sleep(20)
            finally:
                os._exit(1)
        os.close(tell)
        try:
            assert os.read(told, 9) == b"free"
            with open(path) as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.__exit__(None, None, None)
            with open(path) as file:  # though the child lives on
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(told)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def test_of_many_threads_one_has_the_lock(self, logged_in):
        inside, most = [], []

        def use(cache):
            for _ in range(20):
                with cache.lock("a~b~c", 20):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0)
                    inside.pop()

        for cache in (FileCache(logged_in.cache), MemoryCache()):
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(use, [cache] * 8))
        assert set(most) == {1}
        assert len(most) == 320
        assert auth0_cli._held_locks == {}

    @needs_fork
    def test_a_child_does_not_wait_at_its_end_for_a_refresh_of_the_parent(self, logged_in, tenant):
        script = """if True:
            import os, sys, threading, auth0_cli
            thread = threading.Thread(target=auth0_cli.get_token)
            thread.start()
            sys.stdin.readline()
            child = os.fork()
            if child == 0:
                sys.exit()
            os.waitpid(child, 0)
            print(thread.is_alive(), flush=True)"""
        logged_in.expire()
        tenant.hold()
        program = logged_in.python(script, flags=["-W", "ignore"])
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        program.say("now")
        end = threading.Timer(4, tenant.release)  # a child that waits would do so for 5 s
        end.start()
        assert program.out.line() == "True\n"
        end.cancel()
        tenant.release()
        program.finish()


# ---- Properties: Session files -------------------------------------------------------------------


def edited(**changes):
    """Return what changes a session file's JSON; MISSING deletes."""

    def edit(data):
        record = json.loads(data)
        for name, value in changes.items():
            record = changed(record, name, value)
        return json.dumps(record).encode()

    return edit


def token_with(**changes):
    return edited(tokens=lambda tokens: [{**tokens[0], **changes}])


class TestSessionFiles(Flushed):
    def test_are_private_whole_and_without_litter(self, cli):
        before = os.umask(0)
        cli.env["AUTH0_CLI_CACHE"] = str(cli.cache / "below")
        cli.cache = cli.cache / "below"
        try:
            cli.login()
            cli.token("--force-refresh")
        finally:
            os.umask(before)
        assert has_mode(cli.cache.parent, 0o700)
        assert {path.suffix for path in cli.cache.iterdir()} == {".json", ".lock"}
        assert all(has_mode(path, 0o600) for path in cli.cache.iterdir())
        assert has_mode(cli.cache, 0o700)
        assert json.loads(cli.session_file.read_text())["version"] == 1

    def test_stand_in_the_state_directory_by_default(self, cli):
        cli.login(env={"AUTH0_CLI_CACHE": None, "XDG_STATE_HOME": None})
        (path,) = cli.home.rglob("*.json")
        if sys.platform == "linux":
            assert path.parent == cli.home / ".local" / "state" / "auth0_cli"

    @needs_links
    @pytest.mark.parametrize("make", [os.symlink, os.link], ids=["symlink", "hard link"])
    def test_that_are_links_are_refused_and_their_target_left_alone(
        self, logged_in, tmp_path, make
    ):
        session, target = logged_in.session_file, tmp_path / "target"
        shutil.move(session, target)
        make(target, session)
        data = target.read_bytes()
        assert str(session) in logged_in.run("token", "--force-refresh", exit=1).err
        assert target.read_bytes() == data

    @pytest.mark.parametrize(
        "make", ["mkdir", pytest.param("mkfifo", marks=not_on_windows("Windows has no FIFO"))]
    )
    def test_that_are_no_files_are_refused_without_a_wait(self, logged_in, make):
        session = logged_in.session_file
        session.unlink()
        getattr(os, make)(session, 0o600)
        assert str(session) in logged_in.run("token", exit=1).err

    @table(
        "damage",
        {
            "empty": lambda data: b"",
            "half of it": lambda data: data[: len(data) // 2],
            "another object behind it": lambda data: data + b"{}",
            "not UTF-8": lambda data: b"\xff" + data,
            "nested deeply": lambda data: b"[" * 100_000,
            "NaN": lambda data: re.sub(rb'("expires_at": )[\d.]+', rb"\1NaN", data),
            "infinity": lambda data: re.sub(rb'("expires_at": )[\d.]+', rb"\g<1>1e999", data),
            "spaces before it": lambda data: b" " * 2_000_000 + data,
            "spaces behind it": lambda data: data + b" " * 2_000_000,
            "a header in the token": lambda data: data.replace(
                b'"access_token": "', b'"access_token": "x\\nX-Header: y'
            ),
            "half a character": lambda data: data.replace(
                b'"refresh_token": "', b'"refresh_token": "\\ud800'
            ),
            "another profile": edited(profile="another"),
            "version as text": edited(version="2"),
            "version 0": edited(version=0),
            "a list missing": edited(jwks=MISSING),
            "an audience that is a number": edited(audience=7),
            "tokens in an object": edited(tokens={}),
            "a token that is none": edited(tokens=[7]),
            "a user in a list": edited(user=[]),
            "a user without sub": edited(user={"nobody": "auth0|alice"}),
            "a domain that is a number": edited(domain=7),
            "a time of 400 digits": token_with(expires_at=10**400),
            "a text for a switch": token_with(default="no"),
        },
    )
    def test_that_are_damaged_are_set_aside_and_named(self, logged_in, call, damage):
        session = logged_in.session_file
        damaged = damage(session.read_bytes())
        session.write_bytes(damaged)
        error = call("token", code=3).err
        (kept,) = logged_in.cache.glob("*.damaged-*")
        assert kept.read_bytes() == damaged
        assert str(kept) in error
        assert not session.exists()

    @pytest.mark.parametrize("command", ["token", "status", "logout", "login"])
    def test_of_a_newer_version_are_left_alone(self, logged_in, command):
        logged_in.edit(lambda record: record.update(version=2))
        data = logged_in.session_file.read_bytes()
        arguments = ["--flow", "browser", "--no-browser"] if command == "login" else []
        result = logged_in.run(command, *arguments, exit=1)
        assert "newer version" in result.err
        assert logged_in.session_file.read_bytes() == data

    @pytest.mark.parametrize("arguments", [[], ["--json"]])
    def test_that_can_not_be_read_hide_no_others(self, logged_in, tenant, arguments):
        logged_in.login("--profile", "work")
        (path,) = logged_in.cache.glob("*work.json")
        path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
        folder = path.with_name(path.name.replace("work", "a-folder"))  # the first in their order
        folder.mkdir()
        result = logged_in.run("status", *arguments, exit=1)
        assert "Alice Liddell" in result.out
        assert "--profile a-folder" in result.err
        err = logged_in.run("logout", "--all", exit=1).err
        assert err.count("--profile") >= 2
        assert set(logged_in.cache.glob("*.json")) == {path, folder}

    @pytest.mark.parametrize(
        "domain", ["http://0.0.0.0:18099", "--flag=://x", "file:///etc/passwd#", "\x1b[31mevil"]
    )
    def test_that_name_no_domain_are_none(self, cli, domain):
        cli.cache.mkdir(0o700)
        name = auth0_cli._session_key(domain, "c", "default")
        record = {**auth0_cli._new_record(domain, "c", "default"), "refresh_token": "practice"}
        cli.cache.joinpath(f"{name}.json").write_text(json.dumps(record))
        cli.cache.joinpath(f"{name}.json").chmod(0o600)
        env = {"AUTH0_DOMAIN": None, "AUTH0_CLIENT_ID": None}
        for command in ("token", "logout", "status"):
            result = cli.run(command, env=env, exit=None)
            assert domain not in result.err + result.out
            assert result.code == {"token": 2, "logout": 0, "status": 3}[command]

    @needs_links
    def test_behind_a_link_of_another_user_are_refused(
        self, logged_in, tenant, call, monkeypatch, tmp_path
    ):
        def lstat(path, **options):
            info = real(path, **options)
            is_theirs = str(path) == str(link)
            return os.stat_result((*info[:4], 4002, *info[5:])) if is_theirs else info

        link, real = tmp_path / "link", os.lstat
        link.symlink_to(logged_in.cache)
        by = client(tenant, link)
        assert call("token", by=by).out.strip() in tenant.access_tokens
        monkeypatch.setattr(os, "lstat", lstat)
        error = call("token", "--min-ttl", "1", code=1, by=client(tenant, link)).err
        assert f"{link} is a link of another user" in error

    def test_are_nowhere_without_a_home(self, monkeypatch):
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
        for name in ("LOCALAPPDATA", "XDG_STATE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for use in (FileCache().list, lambda: FileCache().read("a~b~c")):
            with pytest.raises(CacheError, match="no home directory"):
                use()

    def test_drop_old_tokens_before_they_are_too_large(self, tenant, monkeypatch, caplog):
        auth0 = machine(tenant.domain)
        monkeypatch.setattr(auth0_cli, "MAX_BYTES", 50_000)
        long = "x" * 7900
        tenant.break_all(
            "/oauth/token", change=lambda reply: {**reply, "scope": f"{number} {long}"}
        )
        for number in range(8):
            with pytest.raises(auth0_cli.OAuthError):
                auth0.get_token(scope=f"scope:{number}")
        kept = [token["scope"].split() for token in auth0.session().tokens]
        assert 1 < len(kept) < 8
        assert kept == [[str(number), long] for number in range(8)][-len(kept) :]
        assert "damaged" not in caplog.text

    @needs_fork
    def test_stay_locked_for_their_holder_when_it_forks(self, cli):
        cache = FileCache(cli.cache)
        with cache.lock("x", 1):
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
            script = """if True:
                import sys, auth0_cli
                try:
                    auth0_cli.FileCache(sys.argv[1]).lock('x', 0.1).__enter__()
                except auth0_cli.NetworkError:
                    print('busy')"""
            assert cli.python(script, cache.directory).finish().out == "busy\n"

    @needs_fork
    def test_are_free_for_a_fork_once_its_parent_is_killed(self, cli):
        script = """if True:
            import os, sys, auth0_cli
            cache = auth0_cli.FileCache(sys.argv[1])
            lock = cache.lock('x', 1)
            lock.__enter__()
            parent = os.getpid()
            if os.fork():
                os.kill(parent, 9)
            while os.getppid() == parent:
                pass
            with cache.lock('x', 5):
                print('free', flush=True)
            os._exit(0)"""
        assert cli.python(script, str(cli.cache)).finish(-9).out == "free\n"

    def test_are_not_changed_by_reading(self, logged_in):
        data = logged_in.session_file.read_bytes()
        logged_in.token()
        logged_in.status()
        assert logged_in.session_file.read_bytes() == data

    @needs_modes
    @pytest.mark.parametrize(
        ("of", "mode", "command"),
        [
            ("session_file", 0o620, "token"),
            ("session_file", 0o602, "logout"),
            ("cache", 0o720, "logout"),
            ("cache", 0o702, "token"),
        ],
    )
    def test_that_a_group_or_others_could_have_written_are_refused(
        self, logged_in, call, of, mode, command
    ):
        path, data = getattr(logged_in, of), logged_in.session_file.read_bytes()
        path.chmod(mode)
        assert f"{path} can be written by other users" in call(command, code=1).err
        assert logged_in.session_file.read_bytes() == data

    @needs_modes
    @pytest.mark.parametrize(
        ("of", "mode"),
        [("session_file", 0o640), ("session_file", 0o604), ("cache", 0o750), ("cache", 0o705)],
    )
    def test_that_a_group_or_others_can_read_are_closed(self, logged_in, call, of, mode):
        path = getattr(logged_in, of)
        path.chmod(mode)
        assert f"warning: {path} could be read" in call("token").err
        assert stat.S_IMODE(path.stat().st_mode) == mode & 0o700
        assert call("token").err == ""

    @needs_modes
    @pytest.mark.parametrize("of", ["cache", "session_file"])
    def test_in_a_directory_of_other_files_are_closed_but_not_the_directory(
        self, logged_in, call, of
    ):
        (logged_in.cache / "index.html").write_text("of a web server")
        for path, mode in ((logged_in.cache, 0o755), (getattr(logged_in, of), 0o755)):
            path.chmod(mode)
        assert ("could be read" in call("token").err) == (of == "session_file")
        assert has_mode(logged_in.cache, 0o755)
        assert has_mode(logged_in.session_file, 0o700 if of == "session_file" else 0o600)

    @needs_modes
    def test_that_can_not_be_closed_are_used_with_a_warning(
        self, logged_in, call, tenant, monkeypatch
    ):
        def chmod(*_):
            raise PermissionError(errno.EPERM, "Operation not permitted")

        logged_in.session_file.chmod(0o644)
        monkeypatch.setattr(os, "chmod", chmod)
        result = call("token")
        assert result.out.strip() in tenant.access_tokens
        assert "that can't be changed" in result.err

    def test_a_directory_that_is_a_file_is_named(self, cli, call):
        cli.cache.write_text("mine")
        assert "is not a directory" in call("token", code=1).err
        assert cli.cache.read_text() == "mine"

    @needs_modes
    @pytest.mark.parametrize("use", ["write", "lock"])
    def test_nothing_is_put_where_others_can_write(self, tmp_path, use):
        directory = tmp_path / "sessions"
        directory.mkdir()
        directory.chmod(0o777)
        with pytest.raises(auth0_cli.CacheError, match="other users"):
            getattr(FileCache(directory), use)("a~b~c", b"secret" if use == "write" else 1)
        assert list(directory.iterdir()) == []

    def test_a_file_that_is_planted_after_the_sweep_is_not_written_to(self, tmp_path, monkeypatch):
        cache, victim = FileCache(tmp_path / "sessions"), tmp_path / "victim"
        victim.write_text("mine")
        cache.write("a~b~c", b"old")
        monkeypatch.setattr(time, "time_ns", lambda: 7)
        monkeypatch.setattr(cache, "_remove", lambda *_: None)  # planted after the sweep
        os.link(victim, cache.directory + f"/a~b~c.tmp-{os.getpid()}-7")
        with pytest.raises(FileExistsError):
            cache.write("a~b~c", b"secret")
        assert victim.read_text() == "mine"
        assert cache.read("a~b~c") == b"old"

    def test_are_on_the_disk_before_they_are_renamed_and_the_name_after(
        self, tmp_path, monkeypatch
    ):
        cache, steps, replace = FileCache(tmp_path / "sessions"), [], os.replace

        def fsync(fd):
            info = os.fstat(fd)
            steps.append("directory" if stat.S_ISDIR(info.st_mode) else info.st_size)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", lambda *a: (steps.append("rename"), replace(*a)))
        cache.write("a~b~c", b"12345")
        directory = ["directory"] * POSIX  # which Windows does not open
        assert steps == [5, "rename", *directory]
        cache.delete("a~b~c")
        assert steps[2:] == directory * 2

    def test_are_put_in_place_without_the_removal_of_anything(self, tmp_path, monkeypatch):
        cache, removed = FileCache(tmp_path / "sessions"), []
        monkeypatch.setattr(os, "unlink", removed.append)
        cache.write("a~b~c", b"old")
        cache.write("a~b~c", b"new")
        assert (cache.read("a~b~c"), removed) == (b"new", [])

    def test_a_directory_that_can_not_be_flushed_fails_nothing(self, tmp_path, monkeypatch):
        def fsync(fd):
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "Invalid argument")

        cache = FileCache(tmp_path / "sessions")
        monkeypatch.setattr(os, "fsync", fsync)
        cache.write("a~b~c", b"new")
        assert cache.read("a~b~c") == b"new"

    def test_leave_no_descriptor_open(self, tmp_path):
        def lowest():
            fd = os.open(os.devnull, os.O_RDONLY)
            os.close(fd)
            return fd

        cache, before = FileCache(tmp_path / "sessions"), lowest()
        with cache.lock("a~b~c", 1):
            pass
        cache.write("a~b~c", b"x")
        cache.read("a~b~c")
        assert lowest() == before

    def test_a_logout_leaves_nothing_of_a_write_that_was_cut_off(self, logged_in, call):
        for suffix in (".tmp-7-7", ".damaged-7"):
            kept = logged_in.session_file.with_suffix(suffix)
            kept.write_bytes(logged_in.session_file.read_bytes())
        call("logout")
        assert {path.suffix for path in logged_in.cache.iterdir()} == {".lock", ".state"}
        (kept,) = logged_in.cache.glob("*.state")  # what the next login asks for
        assert set(json.loads(kept.read_text())) == {"audience", "scope", "organization"}

    @pytest.mark.parametrize("use", ["write", "set_aside", "delete"])
    def test_that_a_reader_holds_open_are_replaced_as_soon_as_it_is_done(
        self, tmp_path, monkeypatch, use
    ):
        def waiting(call):
            def try_it(*paths):
                try:
                    call(*paths)
                except PermissionError:
                    reader.close()
                    raise

            return try_it

        cache = FileCache(tmp_path / "sessions")
        cache.write("a~b~c", b"old")
        for name in ("replace", "unlink"):
            monkeypatch.setattr(os, name, waiting(getattr(os, name)))
        with open(cache.path("a~b~c"), "rb") as reader:
            kept = getattr(cache, use)("a~b~c", *[b"new"] * (use == "write"))
            assert reader.closed is not POSIX  # Windows has refused it once
        assert cache.read("a~b~c") == (b"new" if use == "write" else None)
        names = [os.path.basename(kept)] if kept else ["a~b~c.json"] * (use == "write")
        assert os.listdir(cache.directory) == names

    @pytest.mark.parametrize("name", ["con", "nul.txt", "COM1", "aux.", "a:b", "x ", "a\\b"])
    def test_of_a_name_that_windows_keeps_for_itself_are_like_others(self, tmp_path, name):
        cache, key = FileCache(tmp_path / "sessions"), auth0_cli._session_key("a.io", name, name)
        with cache.lock(key, 1):
            cache.write(key, b"x")
        assert (cache.list(), cache.read(key)) == ([key], b"x")
        cache.delete(key)
        assert cache.list() == []

    def test_are_found_however_their_directory_is_spelled(self, auth0, tenant, monkeypatch):
        log_in(auth0, tenant)
        cache = auth0._arguments["cache"]
        monkeypatch.chdir(cache.parent)
        spelled = [cache.name, cache.as_posix(), f"{cache}{os.sep}", cache / "x" / ".."]
        if not POSIX:
            spelled += [str(cache).upper(), f"{cache.drive.lower()}{cache.name}", rf"\\?\{cache}"]
        for cache in spelled:
            assert client(tenant, cache).session(), cache

    @pytest.mark.parametrize(
        "place", ["/dev/null"] if POSIX else ["nul", "con", "aux.txt", r"Q:\x", "a?b"]
    )
    def test_a_place_that_takes_no_directory_is_named(self, tenant, place):
        with pytest.raises(CacheError) as caught:
            log_in(client(tenant, place), tenant)
        assert "--cache" in str(caught.value)

    def test_a_huge_one_is_not_read_whole(self, tmp_path):
        cache = FileCache(tmp_path / "sessions")
        cache.write("a~b~c", bytes(3 << 20))
        assert len(cache.read("a~b~c")) == auth0_cli.MAX_BYTES + 1

    @pytest.mark.parametrize("key", ["x" * 221, "../a~b~c", "a/b", "/a", ".a~b~c"])
    def test_no_key_leads_elsewhere(self, tmp_path, key):
        cache = FileCache(tmp_path / "sessions")
        for use in (cache.path, cache.read, cache.delete, lambda k: cache.write(k, b"x")):
            with pytest.raises(auth0_cli.CacheError):
                use(key)
        assert list(tmp_path.rglob("*.json")) == []

    @pytest.mark.parametrize("length", [150, 170, 190])
    def test_a_long_name_is_refused_before_a_login_or_works_to_the_end(self, cli, tenant, length):
        auth0 = client(tenant, cli.cache, profile="p" * length)
        if length > 150:
            with pytest.raises(CacheError, match="shorter --profile"):
                log_in(auth0, tenant)
            assert not tenant.requests
        else:
            log_in(auth0, tenant)
            auth0.start_login()
            auth0.logout()
            assert auth0.session() is None

    @pytest.mark.skipif(
        sys.platform in ("win32", "darwin"),
        reason="Windows and macOS have a directory of their own",
    )
    def test_a_relative_state_directory_is_ignored(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_STATE_HOME", "state")
        expected = tmp_path / "home" / ".local" / "state" / "auth0_cli"
        assert FileCache().directory == str(expected)

    @pytest.mark.parametrize(
        "key",
        [
            "a.example~c",
            "a.example~c~default~x",
            "a.example~%63~default",
            "a.example~%zz~default",
            "a.example~%ff~default",
            "A.example~c~default",
            *(
                auth0_cli._session_key(domain, "c", "default")
                for domain in ("http://0.0.0.0:18099", "--flag=://x", "A.example", "a.example.")
            ),
        ],
    )
    def test_of_a_name_that_is_not_as_it_would_be_written_are_none(self, cli, call, key):
        parts = auth0_cli._split_key(key) or ["a.example", "c", "default"]
        for domain in ("http://0.0.0.0:18099", "--flag=://x", "A.example", "a.example."):
            if key == auth0_cli._session_key(domain, "c", "default"):
                parts = [domain, "c", "default"]
        record = {**auth0_cli._new_record(*parts[:3]), "refresh_token": "practice-refresh"}
        cache = FileCache(cli.cache)
        cache.write(key, json.dumps(record).encode())
        assert "AUTH0_DOMAIN" in call("token", code=2, by=Auth0(cache=cli.cache)).err
        assert json.loads(cache.read(key)) == record

    @needs_fork
    def test_a_fork_leaves_the_block_of_its_parent_s_lock_in_peace(self, tmp_path):
        child = None
        try:
            with FileCache(tmp_path / "sessions").lock("x", 1):
                child = os.fork()
        finally:
            if child == 0:
                os._exit(1 if sys.exc_info()[0] else 0)
        assert os.waitpid(child, 0)[1] == 0

    def test_a_tilde_of_a_cache_directory_is_the_home_directory(self, cli, tenant, auth0):
        cli.env["AUTH0_CLI_CACHE"] = str(cli.cache)
        log_in(client(tenant, "~/auth0_cli/kept"), tenant)
        assert [path.suffix for path in (cli.home / "auth0_cli" / "kept").glob("*.json")] == [
            ".json"
        ]
        assert cli.run("token", "--cache", "~/auth0_cli/kept").out.strip() in tenant.access_tokens
        assert cli.run("token", env={"AUTH0_CLI_CACHE": "~/auth0_cli/kept"}).out.strip()
        assert not (Path.cwd() / "~").exists()

    @pytest.mark.parametrize("home", ["/nonexistent", "", "relative", "/dev/null"])
    def test_without_a_home_directory_a_user_is_told_and_a_machine_is_served(
        self, cli, tenant, home
    ):
        place = "HOME" if POSIX else "USERPROFILE"
        env = {"AUTH0_CLI_CACHE": None, "LOCALAPPDATA": None, place: home}
        arguments = ["--flow", "password", "--username", "alice"]
        result = cli.run("login", *arguments, stdin="wonderland-1\n", env=env, exit=1)
        assert f"({place} is not set, or is not a directory)" in result.err
        assert tenant.requests == []
        secret = {"AUTH0_CLIENT_ID": "practice-machine", "AUTH0_CLIENT_SECRET": MACHINE_SECRET}
        served = cli.run("token", env={**env, **secret})
        assert served.out.strip() in tenant.access_tokens
        assert "warning: the session was not saved" in served.err
        assert not list(cli.home.iterdir())

    @pytest.mark.parametrize("mask", [0o177, 0o277, 0o777, 0o000])
    def test_an_unusual_umask_changes_nothing(self, cli, tenant, mask):
        before = os.umask(mask)
        try:
            cli.cache = cli.cache / "below" / "it"
            auth0 = client(tenant, cli.cache)
            log_in(auth0, tenant)
            assert auth0.get_token(force_refresh=True) in tenant.access_tokens
        finally:
            os.umask(before)
        assert has_mode(cli.cache, 0o700)
        assert not POSIX or stat.S_IMODE(cli.cache.parent.stat().st_mode) & 0o077 == 0
        assert all(has_mode(path, 0o600) for path in cli.cache.iterdir())

    @needs_modes
    @pytest.mark.skipif(POSIX and os.geteuid() != 0, reason="only root gives files away")
    @pytest.mark.parametrize("of", ["session_file", "cache"])
    def test_a_file_of_another_user_is_refused(self, logged_in, call, of):
        os.chown(getattr(logged_in, of), 12345, 12345)
        assert "belongs to another user" in call("token", code=1).err

    @pytest.mark.parametrize(
        "profile",
        ["../../../escaped", "/tmp/escaped", "a b", "..", "con", "nul.txt", "ü~%2f", "x" * 60],
    )
    def test_no_name_of_a_profile_leads_out_of_the_directory(self, cli, tenant, call, profile):
        auth0 = client(tenant, cli.cache, profile=profile)
        log_in(auth0, tenant)
        assert cli.session_file.parent == cli.cache
        assert json.loads(call("status", "--json", by=auth0).out)[0]["profile"] == profile
        auth0.logout()
        assert list(cli.cache.glob("*.json")) == []

    @needs_links
    def test_a_planted_temporary_file_leads_nowhere(self, logged_in, tmp_path, auth0):
        victim = tmp_path / "victim"
        victim.write_text("mine")
        temporary = logged_in.session_file.with_suffix(".tmp-7-7")
        temporary.symlink_to(victim)
        token = auth0.get_token(force_refresh=True)
        assert victim.read_text() == "mine"
        assert not temporary.is_symlink()
        assert token in logged_in.session_file.read_text()

    @pytest.mark.parametrize(
        "make",
        [pytest.param(os.symlink, marks=needs_links), lambda _, path: os.mkdir(path)],
        ids=["link", "directory"],
    )
    def test_a_lock_that_is_no_file_is_refused(self, logged_in, tmp_path, call, make):
        victim, lock = tmp_path / "victim", logged_in.session_file.with_suffix(".lock")
        lock.unlink()
        make(str(victim), str(lock))
        before = logged_in.session_file.read_bytes()
        assert str(lock) in call("token", "--force-refresh", code=1).err
        assert not victim.exists()
        assert logged_in.session_file.read_bytes() == before


# ---- Properties: Stored sessions -----------------------------------------------------------------


needs_ulimit = not_on_windows("Windows has no shell that limits a process")
UNREADABLE = ("keeps no permissions", "Permission denied")


def limited(cli, limit, *args, stdin="", prefix=()):
    """Run a command under a limit of the shell."""
    shell = ["sh", "-c", f'ulimit {limit} && exec "$@"', "sh"]
    command = [*shell, *prefix, sys.executable, str(Demo.program), *args]
    options = {"env": cli.env, "cwd": cli.home, "input": stdin, "capture_output": True}
    return subprocess.run(command, encoding="utf-8", check=False, timeout=30, **options)


class TestStoredSessions(Flushed):
    """Caches and disks that fail now and then: no rotated token is lost."""

    @pytest.mark.parametrize("cache", [MemoryCache(), DictCache()], ids=lambda c: type(c).__name__)
    def test_a_cache_of_ones_own_holds_the_session(self, tenant, cache, tmp_path):
        first, second = (
            Auth0(tenant.domain, "practice-native", audience=API, cache=cache) for _ in range(2)
        )
        log_in(first, tenant)
        assert second.get_token() == first.get_token()
        assert second.get_token(force_refresh=True) in tenant.access_tokens
        second.logout()
        assert first.session() is None
        assert cache.list() == []
        assert list(tmp_path.rglob("*.json")) == []

    @needs_modes
    def test_no_machine_takes_the_place_of_a_user_whose_session_is_refused(self, logged_in, tenant):
        logged_in.session_file.chmod(0o620)
        before = logged_in.session_file.read_bytes()
        env = {"AUTH0_CLIENT_SECRET": "a secret"}
        assert "written by other users" in logged_in.run("token", env=env, exit=1).err
        assert "written by other users" in logged_in.run("login", env=env, exit=1).err
        assert tenant.count("client_credentials") == 0
        assert logged_in.session_file.read_bytes() == before

    @needs_modes
    def test_a_machine_whose_own_session_is_refused_goes_on(self, cli, tenant):
        cli.env.update(AUTH0_CLIENT_ID="practice-machine", AUTH0_CLIENT_SECRET=MACHINE_SECRET)
        cli.token()
        cli.session_file.chmod(0o666)
        assert cli.token() in tenant.access_tokens
        assert has_mode(cli.session_file, 0o600)

    @pytest.mark.parametrize(
        "profile", ["application", "pending", "failure", "default.tmp-1", "default.damaged-1"]
    )
    def test_a_profile_may_have_any_name(self, logged_in, tenant, profile):
        program = client(tenant, logged_in.cache, profile=profile)
        log_in(program, tenant, "bob")
        log_in(Auth0(tenant.domain, "practice-other", cache=logged_in.cache), tenant)
        default = client(tenant, logged_in.cache, profile="default")
        assert default.get_token(force_refresh=True) in tenant.access_tokens
        default.logout()
        assert program.session().user["name"] == "Bob Builder"

    def test_threads_that_can_keep_nothing_share_one_request(self, tenant, monkeypatch, tmp_path):
        read_only(monkeypatch, tmp_path)
        program = machine(tenant.domain, str(tmp_path))
        tenant.hold()
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(program.get_token) for _ in range(8)]
            tenant.wait_for(lambda: tenant.count("client_credentials"))
            tenant.release()
            assert len({call.result() for call in calls}) == 1
        assert tenant.count("client_credentials") == 1

    @pytest.mark.parametrize(
        ("method", "fails"),
        [
            ("read", lambda *_: "text"),
            ("read", lambda *_: 7),
            ("list", lambda *_: None),
            ("list", lambda *_: [b"key"]),
            ("lock", lambda *_: None),
            ("lock", lambda *_: contextlib.closing(None)),
            *((name, lambda *_: 1 / 0) for name in ("read", "write", "list", "lock")),
        ],
    )
    def test_a_faulty_cache_is_an_error_and_costs_no_token(self, tenant, method, fails, capsys):
        tenant.rotation = False
        cache = DictCache()
        log_in(Auth0(tenant.domain, "practice-native", audience=API, cache=cache), tenant)
        setattr(cache, method, fails)
        for names in ([tenant.domain, "practice-native"], []):
            auth0 = Auth0(*names, audience=API, cache=cache)
            before = tenant.count("refresh_token")
            try:
                assert auth0.get_token(force_refresh=True) in tenant.access_tokens
            except auth0_cli.CacheError:
                assert tenant.count("refresh_token") == before
        del cache.__dict__[method]
        assert auth0.get_token() in tenant.access_tokens

    def test_what_is_damaged_in_a_cache_of_ones_own_is_set_aside(self, tenant, capsys):
        cache = DictCache()
        auth0 = Auth0(tenant.domain, "practice-native", audience=API, cache=cache)
        log_in(auth0, tenant)
        (key,) = cache.data
        cache.data[key] = damaged = cache.data[key][:-20]
        with pytest.raises(LoginRequired):
            auth0.get_token(force_refresh=True)
        assert damaged in cache.data.values()
        log_in(auth0, tenant)
        assert auth0.get_token() in tenant.access_tokens
        auth0.logout()
        assert auth0.session() is None

    @needs_links
    def test_behind_a_dead_link_a_machine_is_served_and_a_user_is_not(
        self, tenant, tmp_path, caplog
    ):
        (tmp_path / "link").symlink_to(tmp_path / "gone")
        machine = {"client_secret": MACHINE_SECRET, "audience": API, "cache": tmp_path / "link"}
        auth0 = Auth0(tenant.domain, "practice-machine", **machine)
        assert auth0.get_token() in tenant.access_tokens
        assert "was not saved" in caplog.text
        tenant.requests.clear()
        with pytest.raises(CacheError, match="link"):
            log_in(client(tenant, tmp_path / "link"), tenant)
        assert tenant.requests == []

    def test_a_reader_sees_no_token_that_is_not_kept_yet(self, tenant):
        class SlowCache(DictCache):
            def write(self, key, data):
                seeing = look if key.count("~") == 2 else str
                seeing()
                super().write(key, data)
                seeing()

        def look():
            auth0._recent.clear()
            seen.append(auth0.session() and auth0.get_token())

        seen, cache = [], SlowCache()
        auth0 = Auth0(tenant.domain, "practice-native", audience=API, cache=cache)
        log_in(auth0, tenant)
        assert seen == [None, auth0.get_token()]
        old = auth0.get_token()
        seen.clear()
        new = auth0.get_token(force_refresh=True)
        assert seen == [old, new]

    def test_a_login_on_demand_that_can_not_be_saved_brings_its_token(self, tenant, desk, caplog):
        cache = DictCache()
        cache.refuse_sessions()
        auth0 = client(tenant, cache)
        assert auth0.get_token(interactive=True) in tenant.access_tokens
        assert "was not saved" in caplog.text

    def test_what_is_mended_before_the_lock_is_had_is_not_set_aside(self, tenant):
        class MendedCache(DictCache):
            def lock(self, key, timeout):
                self.data.update(whole)
                return super().lock(key, timeout)

        cache = MendedCache()
        whole = {}
        auth0 = client(tenant, cache)
        log_in(auth0, tenant)
        whole = dict(cache.data)
        (key,) = whole
        cache.data[key] = whole[key][:-20]
        assert auth0.session().user["sub"] == "auth0|alice"
        assert cache.data == whole

    def test_what_another_writes_wins_over_what_could_not_be_saved(self, tenant, caplog):
        cache = DictCache()
        auth0, other = client(tenant, cache), client(tenant, cache)
        log_in(auth0, tenant)
        cache.refuse_sessions()
        auth0.get_token(force_refresh=True)
        assert "was not saved" in caplog.text
        del cache.write
        log_in(other, tenant, "bob")
        assert auth0.session().user["sub"] == "auth0|bob"

    @pytest.mark.parametrize("by", ["itself", "another"])
    def test_what_could_not_be_saved_does_not_outlive_a_logout(self, tenant, by):
        cache = DictCache()
        auth0, other = client(tenant, cache), client(tenant, cache)
        cache.refuse_sessions()
        with pytest.raises(auth0_cli.CacheError):
            log_in(auth0, tenant)
        assert auth0.session()
        if by == "itself":
            auth0.logout()
        else:
            del cache.write
            log_in(auth0, tenant)
            other.logout()
        assert auth0.session() is None

    def test_what_could_not_be_saved_is_used_while_nothing_can_be_read(self, tenant):
        cache = DictCache()
        auth0 = client(tenant, cache)
        cache.refuse_sessions()
        with pytest.raises(CacheError):
            log_in(auth0, tenant)
        cache.read = lambda key: 1 / 0
        assert auth0.get_token() in tenant.access_tokens

    def test_of_many_sessions_that_could_not_be_saved_only_some_are_kept(self, tenant):
        cache = DictCache()
        cache.refuse_sessions()
        users = [client(tenant, cache, profile=f"user-{number}") for number in range(65)]
        for user in users:
            with pytest.raises(CacheError):
                log_in(user, tenant)
        assert users[0].session() is None
        assert users[-1].session()

    @pytest.mark.parametrize("fails", [False, True], ids=["a refresh", "a refresh that fails"])
    @pytest.mark.parametrize("saved_by", ["itself", "another process"])
    def test_what_could_not_be_saved_does_not_come_back_once_something_was(
        self, cli, auth0, tenant, monkeypatch, saved_by, fails
    ):
        def fail(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(CacheError):
                log_in(auth0, tenant)
        if saved_by != "itself":
            cli.login(user="bob")
            assert auth0.session().user["sub"] == "auth0|bob"
        if fails:
            tenant.break_next("/oauth/token", status=503)
        with pytest.raises(NetworkError) if fails else contextlib.nullcontext():
            auth0.get_token(force_refresh=True)
        if fails and saved_by == "itself":
            auth0.get_token(force_refresh=True)
        cli.run("logout")
        assert auth0.session() is None

    def test_nothing_is_written_without_the_lock(self, tenant):
        class Cache(DictCache):
            held = 0

            @contextlib.contextmanager
            def lock(self, key, timeout):
                with super().lock(key, timeout):
                    self.held += 1
                    yield
                    self.held -= 1

            def write(self, key, data):
                seen.append(self.held)
                super().write(key, data)

            def delete(self, key):
                seen.append(self.held)
                super().delete(key)

        seen = []
        auth0 = client(tenant, Cache())
        log_in(auth0, tenant)
        auth0.get_token(force_refresh=True)
        auth0.logout()
        assert 0 not in seen

    def test_a_machine_replaces_no_session_of_a_newer_version(self, cli, tenant):
        machine(tenant.domain, cli.cache).get_token()
        cli.edit(lambda record: record.update(version=2))
        newer = cli.session_file.read_bytes()
        with pytest.raises(CacheError, match="newer version"):
            machine(tenant.domain, cli.cache).get_token()
        assert cli.session_file.read_bytes() == newer

    def test_a_logout_has_the_locks_of_the_session_and_of_a_pending_login(self, tenant):
        class Cache(DictCache):
            @contextlib.contextmanager
            def lock(self, key, timeout):
                with super().lock(key, timeout):
                    held.append(key)
                    yield
                    held.remove(key)

            def delete(self, key):
                seen[key] = sorted(held)
                super().delete(key)

        held, seen = [], {}
        auth0 = client(tenant, Cache(), profile="default")
        log_in(auth0, tenant)
        (key,) = auth0._arguments["cache"].data
        auth0.logout()
        assert seen[key] == [key, f"{key}~pending"]

    def test_a_cache_that_fails_amid_a_renewal_costs_no_valid_token(self, tenant):
        class Cache(DictCache):
            def lock(self, key, timeout):
                self.read = lambda key: 1 / 0
                return super().lock(key, timeout)

        cache = DictCache()
        auth0 = client(tenant, cache)
        log_in(auth0, tenant)
        token, (key,) = auth0.get_token(), cache.data
        record = json.loads(cache.data[key])
        expire_in(30)(record)
        failing = Cache()
        failing.data[key] = json.dumps(record).encode()
        assert client(tenant, failing).get_token() == token

    def test_a_login_replaces_no_session_of_a_newer_version_that_came_meanwhile(
        self, logged_in, tenant, auth0
    ):
        def replace(reply):
            logged_in.edit(lambda record: record.update(version=2))
            return reply

        tenant.break_next("/oauth/token", change=replace)
        with pytest.raises(auth0_cli.CacheError, match="newer version"):
            log_in(auth0, tenant)
        assert json.loads(logged_in.session_file.read_text())["version"] == 2

    def test_a_cache_need_take_nothing_but_json(self, tenant):
        class Cache(DictCache):
            def write(self, key, data):
                assert "\0" not in data.decode()
                super().write(key, json.loads(data))

            def read(self, key):
                found = super().read(key)
                return found and json.dumps(found).encode()

        auth0 = client(tenant, Cache())
        log_in(auth0, tenant)
        assert auth0.get_token(force_refresh=True) in tenant.access_tokens
        tenant.break_next("/oauth/token", status=503)
        with pytest.raises(NetworkError):
            auth0.get_token(force_refresh=True)
        assert auth0.get_token(force_refresh=True) in tenant.access_tokens

    @table(
        "name, number",
        {
            "flush of the file": ("fsync", errno.EIO),
            "no space for it": ("fsync", errno.ENOSPC),
            "quota": ("fsync", errno.EDQUOT),
            "modes": ("fchmod", errno.EPERM),
        },
    )
    def test_a_refresh_token_is_not_sent_where_the_next_one_can_not_be_saved(
        self, logged_in, tenant, call, monkeypatch, name, number
    ):
        before = logged_in.session_file.read_bytes()
        token = call("token").out

        def fail(*_, **__):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            result = call("token", "--force-refresh", code=1)
            assert call("token", "--min-ttl", "999999").out == token  # a valid one is served
        assert str(logged_in.cache) in result.err
        assert tenant.count("refresh_token") == 0
        assert logged_in.session_file.read_bytes() == before
        assert {path.suffix for path in logged_in.cache.iterdir()} == {".json", ".lock"}
        assert call("token", "--force-refresh").out.strip() in tenant.access_tokens

    def test_a_write_that_fails_after_the_refresh_costs_no_token(
        self, logged_in, tenant, call, monkeypatch
    ):
        def fail(*_, **__):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        before = logged_in.session_file.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            result = call("token", "--force-refresh")
        assert result.out.strip() in tenant.access_tokens
        assert "warning: the session was not saved" in result.err
        assert logged_in.session_file.read_bytes() == before
        assert {path.suffix for path in logged_in.cache.iterdir()} == {".json", ".lock"}

    @pytest.mark.parametrize("faulty", range(1, 6))
    def test_a_read_that_fails_amid_a_refresh_loses_no_rotated_token(
        self, logged_in, auth0, tenant, faulty
    ):
        class Cache(FileCache):
            reads = 0

            def read(self, key):
                self.reads += 1
                if self.reads == faulty:
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                return super().read(key)

        logged_in.expire()
        program = client(tenant, Cache(logged_in.cache))
        with contextlib.suppress(CacheError):
            program.get_token()
        for _ in range(2):
            assert program.get_token(force_refresh=True) in tenant.access_tokens
        assert logged_in.token("--force-refresh") in tenant.access_tokens

    @pytest.mark.parametrize("writes", ["0", "1", "001", "0010", "00010", "01010", "0001010"])
    def test_a_disk_that_fails_now_and_then_loses_no_rotated_token(
        self, logged_in, tenant, monkeypatch, writes
    ):
        left = [False, False, False, *map(int, writes)]  # those of the first refresh fail
        real = os.replace

        def replace(source, target):
            if left and not left.pop(0):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        program = client(tenant, logged_in.cache)
        for _ in range(3):
            assert program.get_token(force_refresh=True) in tenant.access_tokens
        monkeypatch.undo()
        assert program.get_token(force_refresh=True) in tenant.access_tokens  # and saves it
        assert logged_in.token("--force-refresh") in tenant.access_tokens

    def test_a_slow_reader_drops_nothing_that_could_not_be_saved(self, tenant, caplog):
        reading, go_on = threading.Event(), threading.Event()

        class Cache(DictCache):
            def read(self, key):
                data = super().read(key)
                if threading.current_thread().name == "reader":
                    reading.set()
                    go_on.wait(20)
                return data

        cache = Cache()
        program = client(tenant, cache, profile="default")
        log_in(program, tenant)
        reader = threading.Thread(target=program.session, name="reader")
        reader.start()
        reading.wait(20)
        program.get_token(force_refresh=True)
        cache.refuse_sessions()
        program.get_token(force_refresh=True)
        assert "not saved" in caplog.text
        go_on.set()
        reader.join()
        assert program.get_token(force_refresh=True) in tenant.access_tokens

    def test_what_could_not_be_saved_does_not_stand_beside_what_others_stored(self, tenant, caplog):
        cache = DictCache()
        known = client(tenant, cache)
        log_in(known, tenant)
        program = Auth0(cache=cache)
        cache.refuse_sessions()
        program.get_token(force_refresh=True)
        assert "not saved" in caplog.text
        del cache.write
        known.logout(local=True)
        log_in(Auth0(tenant.domain, "practice-other", audience=API, cache=cache), tenant)
        assert program.session().client_id == "practice-other"

    def test_a_program_goes_on_with_what_it_could_not_save(self, tenant, monkeypatch, cli, capsys):
        def fail(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        program = client(tenant, cli.cache)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(CacheError):
                log_in(program, tenant)
            for command, code in (("token", 0), ("logout", 0), ("token", 3)):
                assert auth0_cli.main([command], defaults=program) == code
        assert not any(session.is_alive for session in tenant.sessions)

    def test_what_a_full_disk_did_not_take_is_saved_once_there_is_room(
        self, logged_in, tenant, monkeypatch, caplog
    ):
        def fail(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            client(tenant, logged_in.cache).get_token(force_refresh=True)
        assert "not saved" in caplog.text
        other = client(tenant, str(logged_in.cache))  # another object, the same directory
        assert other.get_token(force_refresh=True) in tenant.access_tokens
        assert logged_in.token("--force-refresh") in tenant.access_tokens

    @needs_ulimit
    @pytest.mark.parametrize("limit", ["-f 0", "-f 1"], ids=["full", "nearly full"])
    def test_a_full_disk_costs_no_session(self, logged_in, tenant, limit):
        before = logged_in.session_file.read_bytes()
        done = limited(logged_in, limit, "token", "--force-refresh")
        assert done.returncode == 1
        assert re.fullmatch(r"auth0_cli: sessions can't be kept in .+\n", done.stderr)
        assert tenant.count("refresh_token") == 0
        assert logged_in.session_file.read_bytes() == before
        assert {path.suffix for path in logged_in.cache.iterdir()} == {".json", ".lock"}

    @needs_ulimit
    def test_a_login_on_a_full_disk_is_no_login(self, cli, tenant):
        arguments = ["login", "--flow", "password", "--username", "alice"]
        done = limited(cli, "-f 0", *arguments, stdin="wonderland-1\n")
        assert done.returncode == 1
        assert "auth0_cli: sessions can't be kept in" in done.stderr
        assert tenant.requests == []
        assert cli.status() == []
        assert {path.suffix for path in cli.cache.iterdir()} == {".lock"}

    @needs_ulimit
    def test_a_handful_of_file_descriptors_is_enough(self, logged_in, tenant):
        done = limited(logged_in, "-n 16", "token", "--force-refresh")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip() in tenant.access_tokens

    @needs_modes
    @pytest.mark.parametrize(("flags", "code"), [([], 0), (["--force-refresh"], 1)])
    def test_a_directory_that_can_not_be_written_costs_no_refresh_token(
        self, logged_in, tenant, flags, code
    ):
        before = logged_in.session_file.read_bytes()
        prefix = []
        if os.geteuid() == 0:
            if not shutil.which("setpriv"):
                pytest.skip("root may write everywhere, and there is no setpriv to take that away")
            prefix = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
        logged_in.session_file.with_suffix(".lock").unlink()
        logged_in.cache.chmod(0o500)
        try:
            done = limited(logged_in, "-n 99", "token", *flags, prefix=prefix)
        finally:
            logged_in.cache.chmod(0o700)
        assert done.returncode == code, done.stderr
        assert (done.stdout.strip() in tenant.access_tokens) == (code == 0)
        assert (str(logged_in.cache) in done.stderr) == (code == 1)
        assert tenant.count("refresh_token") == 0
        assert logged_in.session_file.read_bytes() == before

    def test_a_process_that_dies_at_any_step_of_a_write_leaves_the_old_or_the_new(self, cli):
        script = (
            "import os, sys, auth0_cli\n"
            "left = int(sys.argv[2])\n"
            "def dying(function):\n"
            "    def call(*args, **options):\n"
            "        global left\n"
            "        left -= 1\n"
            "        if left < 0:\n"
            "            os._exit(9)\n"
            "        return function(*args, **options)\n"
            "    return call\n"
            "cache = auth0_cli.FileCache(sys.argv[1])\n"
            "for name in {*'open fchmod fsync replace unlink close stat'.split()} & {*dir(os)}:\n"
            "    setattr(os, name, dying(getattr(os, name)))\n"
            "cache.write('a~b~c', b'new')\n"
            "os._exit(0)"
        )
        cache, found = FileCache(cli.cache), []
        for steps in range(50):
            cache.write("a~b~c", b"old")
            done = cli.python(script, str(cli.cache), str(steps)).finish(None)
            found.append(cache.read("a~b~c"))
            for path in cli.cache.iterdir():
                assert has_mode(path, 0o600)
            if done.code == 0:
                break
            assert done.code == 9
        assert len(found) > 5
        assert found == [b"old"] * found.count(b"old") + [b"new"] * found.count(b"new")
        assert found[-1] == b"new"
        cache.write("a~b~c", b"next")
        assert [path.name for path in cli.cache.iterdir()] == ["a~b~c.json"]

    def test_nobody_is_asked_for_a_login_that_can_not_be_kept(
        self, cli, tenant, call, desk, spoilt
    ):
        asked = []
        auth0 = client(tenant, cli.cache)
        for flow in ("browser", "device", "password", "auto"):
            with pytest.raises(CacheError) as caught:
                auth0.login(flow=flow, username="alice", password="wonderland-1", show=asked.append)
            assert spoilt in str(caught.value)
            assert "--cache" in str(caught.value)
        call("token", "--login", code=1, by=auth0)
        assert (asked, tenant.requests) == ([], [])

    def test_a_refresh_token_is_not_sent_if_the_next_one_can_not_be_kept(
        self, kept, tenant, call, spoilt
    ):
        for arguments in (["--force-refresh"], ["--id-token", "--force-refresh"]):
            result = call("token", *arguments, code=1, by=kept)
            assert spoilt in result.err
        assert tenant.requests == []

    def test_a_valid_token_is_served_though_the_next_one_can_not_be_kept(
        self, cli, kept, tenant, call, spoilt
    ):
        if spoilt in UNREADABLE:
            pytest.skip("there is no token that could be read")
        cli.edit(expire_in(30))
        assert call("token", by=kept).out.strip() in tenant.access_tokens
        assert tenant.requests == []

    def test_a_machine_is_served_with_a_warning_where_nothing_can_be_kept(
        self, cli, tenant, call, spoilt
    ):
        by = machine(tenant.domain, cli.cache)
        for _ in range(2):
            result = call("token", "--force-refresh", by=by)
            assert result.out.strip() in tenant.access_tokens
        assert ("warning: the session was not saved: " in result.err) == (
            spoilt != "No locks available"
        )


# ---- Properties: Hostile text --------------------------------------------------------------------


ESCAPES_IN_PATH = ESCAPES.replace("\0", "") if POSIX else "\u202e[2J"  # what can stand there
SENT = {  # path -> the command that sends a request there
    "/oauth/token": ["token", "--force-refresh"],
    "/oauth/device/code": ["login", "--flow", "device"],
    "/oauth/revoke": ["logout"],
}
HOSTILE = {}  # where the text comes from -> function from the fixtures to what is shown of it


def shows(function):
    """Register a row."""
    HOSTILE[function.__name__.replace("_", " ")] = function
    return function


@shows
def a_word_that_is_no_command(its):
    return its.call(ESCAPES, code=2).err


@shows
def an_option_before_the_command(its):
    return its.call(f"--x{ESCAPES}", code=2).err


@shows
def an_option_of_a_command(its):
    return its.call("login", f"--x{ESCAPES}", code=2).err


@shows
def a_port(its):
    return its.call("login", "--flow", "browser", "--port", f"1{ESCAPES}", code=2).err


@shows
def a_version_for_kubectl(its):
    its.monkeypatch.setenv("KUBERNETES_EXEC_INFO", json.dumps({"apiVersion": ESCAPES}))
    return its.call("token", "--exec-credential", code=2).err


@shows
def the_address_of_an_ssh_session(its):
    host = "".join(ESCAPES.replace("\0", "").split())
    its.monkeypatch.setenv("SSH_CONNECTION", f"192.0.2.1 1 {host} 22")
    with pytest.raises(LoginFailed):
        its.auth0.login(flow="browser", open_browser=False, timeout=0.01)
    return its.capsys.readouterr().err


@shows
def a_directory_in_the_next_step(its):
    cache = str(its.tmp_path / f"x{ESCAPES_IN_PATH}")
    return its.call(
        "token", code=3, by=Auth0(its.tenant.domain, "practice-native", cache=cache)
    ).err


def session_in(cache):
    """Return the file of a session in a new directory."""
    key = auth0_cli._session_key("a.example", "c", "default")
    FileCache(cache).write(
        key, json.dumps(auth0_cli._new_record("a.example", "c", "default")).encode()
    )
    return Path(FileCache(cache).path(key))


@shows
def a_directory_that_others_can_write(its):
    if not POSIX:
        pytest.skip(needs_modes.kwargs["reason"])
    cache = its.tmp_path / f"x{ESCAPES_IN_PATH}"
    session_in(cache)
    cache.chmod(0o777)
    return its.call("token", code=1, by=Auth0("a.example", "c", cache=str(cache))).err


@shows
def a_place_for_no_directory(its):
    place = its.tmp_path / f"x{ESCAPES_IN_PATH}"
    place.touch()
    with pytest.raises(CacheError) as caught:
        log_in(client(its.tenant, str(place / "y")), its.tenant)
    return str(caught.value)


@shows
def the_place_of_a_damaged_session(its):
    cache = its.tmp_path / f"x{ESCAPES_IN_PATH}"
    session_in(cache).write_text("{")
    return its.call("token", code=3, by=Auth0("a.example", "c", cache=str(cache))).err


@shows
def the_host_of_a_proxy(its):
    its.monkeypatch.setattr(auth0_cli, "time", Clock(its.tenant))
    its.monkeypatch.setenv("https_proxy", f"http://h{ESCAPES_IN_PATH}:1")
    return its.call("token", code=5, by=machine("a.example")).err


def words_of_a_file(its, user, *command, **expected):
    names = ("a.example", "c\x1b[2J\u202e\n", "p\x9b\x1b[2J\u2066\0")  # files have short names
    record, cache = auth0_cli._new_record(*names), its.tmp_path / f"d{ESCAPES_IN_PATH}"
    entry = auth0_cli._new_entry({"access_token": "x", "scope": ""}, f"a{ESCAPES}")
    record.update(user=user, tokens=[{**entry, "scope": f"s{ESCAPES}", "expires_at": 9e9}])
    FileCache(cache).write(auth0_cli._session_key(*names), json.dumps(record).encode())
    result = its.call(*command, by=Auth0(cache=str(cache)), **expected)
    return result.out + result.err


EVE = {"sub": "x", "name": f"Eve{ESCAPES}"}


@shows
def the_session_of_a_machine(its):
    text = words_of_a_file(its, {}, "status")
    assert text.count("[2J") >= 5
    return text


@shows
def the_session_of_a_user(its):
    text = words_of_a_file(its, EVE, "status")
    assert text.count("[2J") >= 5
    return text


@shows
def a_session_without_a_refresh_token(its):
    return words_of_a_file(its, EVE, "token", "--force-refresh", code=3)


@shows
def a_session_that_is_logged_out(its):
    return words_of_a_file(its, EVE, "logout")


def refused_id_token(its, make):
    forge(its.tenant, make)
    with pytest.raises(InvalidToken) as caught:
        log_in(its.auth0, its.tenant)
    return str(caught.value)


@shows
def the_algorithm_of_an_id_token(its):
    return refused_id_token(its, lambda claims: jwt(claims, {"alg": ESCAPES}))


@shows
def the_issuer_of_an_id_token(its):
    issuer = f"https://evil.example/{ESCAPES}"
    return refused_id_token(its, lambda claims: jwt({**claims, "iss": issuer}))


def refused_in_the_browser(its, **answer):
    login = WaitingLogin(its.auth0, its.tenant)
    answer = {"error": "access_denied", "state": login.state, **answer}
    page = fetch(f"{login.redirect_uri}?{urlencode(answer)}").text
    with pytest.raises(LoginFailed) as caught:
        login.result()
    return f"{caught.value}\n{caught.value.error or ''}\n{page}"


@shows
def the_issuer_of_the_browser_s_answer(its):
    return refused_in_the_browser(its, iss=ESCAPES)


@shows
def the_error_of_the_browser_s_answer(its):
    return refused_in_the_browser(its, error=ESCAPES)


@shows
def the_description_of_the_browser_s_answer(its):
    return refused_in_the_browser(its, error_description=ESCAPES)


@shows
def the_name_of_the_user(its):
    its.tenant.id_claims = {"name": f"Eve{ESCAPES}", "email": f"eve@example.test{ESCAPES}"}
    log_in(its.auth0, its.tenant)
    return f"{its.auth0.session().user['name']}\n{its.call('status').out}"


def refused_by(its, path, **fault):
    log_in(its.auth0, its.tenant)
    its.tenant.break_all(path, **fault)
    return its.call(*SENT[path], code=4).err


for path in ("/oauth/token", "/oauth/device/code", "/oauth/revoke"):
    for field in ("error", "error_description"):
        HOSTILE[f"{field} of {path}"] = lambda its, path=path, field=field: refused_by(
            its,
            path,
            status=400,
            body={"error": "invalid_request", "error_description": "why", field: f"<{ESCAPES}>"},
        )


@shows
def a_text_of_the_server(its):
    return refused_by(its, "/oauth/token", status=400, body=f"Bad{ESCAPES}Request")


@shows
def the_type_of_a_token(its):
    change = {"change": lambda reply: {**reply, "token_type": ESCAPES}}
    return refused_by(its, "/oauth/token", **change)


class TestHostileText:
    """It moves no cursor, reverses no reading and adds no line."""

    @table("show", HOSTILE)
    def test_is_shown_as_one_printable_line(
        self, call, auth0, tenant, monkeypatch, capsys, tmp_path, show
    ):
        its = SimpleNamespace(call=call, auth0=auth0, tenant=tenant, monkeypatch=monkeypatch)
        its.capsys, its.tmp_path = capsys, tmp_path
        text = show(its)
        assert all(line.isprintable() for line in text.split("\n"))
        assert "[2J" in text
        assert not re.search("^auth0_cli: all", text, re.MULTILINE)

    def test_in_what_doctor_finds(self, tenant, tls, tmp_path, monkeypatch, capsys):
        # OpenSSL wants ASCII there on Windows.
        path = tmp_path / (f"x{ESCAPES_IN_PATH}.pem" if POSIX else "x [2J.pem")
        path.write_bytes(tls.read_bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        monkeypatch.setattr(auth0_cli, "_has_local_display", lambda: True)
        monkeypatch.setattr(auth0_cli, "_find_browsers", lambda: [[f"b{ESCAPES}"]])
        about = {"issuer": f"https://evil.example/{ESCAPES}"}
        tenant.break_all("/.well-known/openid-configuration", body=about)
        auth0 = Auth0(f"localhost:{tenant.port}", "practice-native", cache=tmp_path / "sessions")
        auth0_cli.main(["doctor"], defaults=auth0)
        out, err = capsys.readouterr()
        assert all(line.isprintable() for line in (out + err).split("\n"))
        assert out.count("[2J") == 3


# ---- Properties: Secrets -------------------------------------------------------------------------


def secrets_in_frames(problem, tenant):
    """Return which secrets a crash reporter shows that captures the locals of frames."""
    links, shown = [problem], []
    for link in links:
        links += filter(None, (link.__cause__, link.__context__, *getattr(link, "exceptions", ())))
        trace = link.__traceback__
        while trace:
            if link is not problem or trace.tb_frame.f_code.co_filename == auth0_cli.__file__:
                shown += map(repr, trace.tb_frame.f_locals.values())
            trace = trace.tb_next
    return [secret for secret in tenant.secrets if secret in "".join(shown)]


class TestSecrets:
    """Where no secret may be: messages, frames, the environment of a browser."""

    def test_no_repr_tells_a_secret(self, tenant):
        auth0 = Auth0(
            tenant.domain, "practice-web", client_secret="web-secret-~!%:+ &x", cache=MemoryCache()
        )
        session = log_in(auth0, tenant, flow="browser")
        text = f"{auth0!r} {auth0.bearer!r} {session!r} {vars(session)}"
        assert not [secret for secret in tenant.secrets if secret in text]

    @table(
        "fail",
        {
            "a refused refresh": lambda tenant, auth0: (
                tenant.break_all("/oauth/token", status=403, body={"error": "access_denied"}),
                auth0.get_token(force_refresh=True),
            ),
            "a session that has ended": lambda tenant, auth0: (
                tenant.revoke_sessions("alice"),
                auth0.get_token(min_ttl=1e9, force_refresh=True),
            ),
            "no network": lambda tenant, auth0: (
                tenant.close(),
                auth0.get_token(force_refresh=True),
            ),
            "an answer without token": lambda tenant, auth0: (
                tenant.break_all("/oauth/token", change=lambda r: {**r, "token_type": "mac"}),
                auth0.get_token(force_refresh=True),
            ),
            "a password": lambda tenant, auth0: auth0.login(
                flow="password", username="alice", password="wrong-password-1"
            ),
            "a logout": lambda tenant, auth0: (
                tenant.break_all("/oauth/revoke", status=403, body={"error": "access_denied"}),
                auth0.logout(),
            ),
            "the ID token": lambda tenant, auth0: (
                tenant.break_all("/oauth/token", status=403, body={"error": "access_denied"}),
                auth0.get_id_token(force_refresh=True),
            ),
            "another grant": lambda tenant, auth0: auth0.grant(
                "unknown", subject_token="subject-token-1"
            ),
            "the module's function": lambda tenant, auth0: get_token(
                domain=tenant.domain,
                client_id="practice-machine",
                client_secret="wrong-secret-1",
                audience=API,
                cache=auth0._arguments["cache"],
            ),
        },
    )
    def test_the_frames_of_an_error_hold_no_secret(self, logged_in, tenant, hurried, fail):
        auth0 = client(tenant, logged_in.cache)
        tenant.secrets.update(("wrong-password-1", "subject-token-1", "wrong-secret-1"))
        with pytest.raises(auth0_cli.Auth0Error) as caught:
            fail(tenant, auth0)
        assert not secrets_in_frames(caught.value, tenant)

    def test_no_frame_shows_a_token_that_was_given_before(self, logged_in, tenant, hurried):
        auth0 = client(tenant, logged_in.cache)
        auth0.get_token()
        auth0_cli.FileCache(logged_in.cache).delete(logged_in.session_file.stem)
        hurried.sleeps.append(2)
        with pytest.raises(LoginRequired) as caught:
            auth0.get_token()
        assert not secrets_in_frames(caught.value, tenant)

    def test_the_causes_of_an_error_show_no_secret_either(self, tenant):
        class Cache(DictCache):
            def write(self, key, data):
                if key.count("~") == 2:
                    self.send(data)
                super().write(key, data)

            def send(self, data):
                try:
                    self.connect(data)
                except OSError as problem:
                    raise ValueError("not sent") from problem

            def connect(self, data):
                raise ConnectionError("refused")

        auth0 = client(tenant, Cache())
        with pytest.raises(CacheError) as caught:
            auth0.login(flow="password", username="alice", password="wonderland-1")
        assert type(caught.value.__cause__.__cause__) is ConnectionError
        assert not secrets_in_frames(caught.value, tenant)

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with 3.11")
    def test_the_members_of_a_group_show_no_secret_either(self, tenant):
        class Cache(DictCache):
            def write(self, key, data):
                if key.count("~") == 2:
                    problems = []
                    for _ in range(2):
                        try:
                            self.send(data)
                        except OSError as problem:
                            problems.append(problem)
                    raise ExceptionGroup("both", problems)  # noqa: F821 - of 3.11
                super().write(key, data)

            def send(self, data):
                raise ConnectionError("refused")

        auth0 = client(tenant, Cache())
        with pytest.raises(CacheError) as caught:
            auth0.login(flow="password", username="alice", password="wonderland-1")
        assert len(caught.value.__cause__.exceptions) == 2
        assert not secrets_in_frames(caught.value, tenant)

    @table(
        "wrap",
        {
            "in the description": lambda s: {"error": "x", "error_description": f"bad {s}."},
            "in the error": lambda s: {"error": f"bad-{s}"},
            "in a list": lambda s: {"error": ["bad", s]},
            "with plus signs": lambda s: {"error": "x", "error_description": quote_plus(s)},
            "percent-encoded": lambda s: {"error": "x", "error_description": quote(s, "")},
            "at the end of what is shown": lambda s: {
                "error": "x",
                "error_description": "." * (300 - len(s)) + s + "." * 100,
            },
            "as text": lambda s: f"bad token {s}",
            "as text, many times": lambda s: "." * ((502 - len(s)) % len(s)) + s * 40,
            "as text, cut": lambda s: "." * (200 - len(s)) + s,
        },
    )
    def test_a_secret_is_masked_in_each_spelling_and_place(self, tenant, call, wrap):
        tenant.break_all("/oauth/token", status=400, body=wrap(MACHINE_SECRET))
        err = call("token", code=4, by=machine(tenant.domain)).err
        for spelling in (MACHINE_SECRET, quote(MACHINE_SECRET, ""), quote_plus(MACHINE_SECRET)):
            assert spelling[:-4] not in err

    @table(
        "path, names, send",
        {
            "refresh": (
                "/oauth/token",
                "refresh_token",
                lambda auth0, tenant: auth0.get_token(force_refresh=True),
            ),
            "revocation": ("/oauth/revoke", "token", lambda auth0, tenant: auth0.logout()),
            "machine": (
                "/oauth/token",
                "client_secret",
                lambda auth0, tenant: machine(tenant.domain).get_token(),
            ),
            "client assertion": (
                "/oauth/token",
                "client_assertion",
                lambda auth0, tenant: client(
                    tenant, MemoryCache(), client_assertion=lambda: "a.signed.assertion"
                ).get_token(),
            ),
            "browser": (
                "/oauth/token",
                "code code_verifier",
                lambda auth0, tenant: log_in(auth0, tenant, flow="browser"),
            ),
            "device": (
                "/oauth/token",
                "device_code",
                lambda auth0, tenant: auth0.login(flow="device", show=lambda _: None),
            ),
            "password": ("/oauth/token", "password", log_in),
            **{
                name: (
                    "/oauth/token",
                    name,
                    lambda auth0, tenant, name=name: auth0.grant("x", **{name: f"{name}-of-mine"}),
                )
                for name in (
                    *("subject_token", "actor_token", "assertion", "mfa_token", "otp"),
                    *("oob_code", "binding_code", "recovery_code"),
                )
            },
        },
    )
    def test_a_secret_that_the_server_repeats_is_masked(
        self, logged_in, auth0, tenant, hurried, path, names, send
    ):
        def repeat(request):
            seen.update({name: request.params[name] for name in names.split()})
            return {"error": "x", "error_description": f"bad {' '.join(seen.values())}"}

        seen = {}
        tenant.break_all(path, status=400, body=repeat)
        with pytest.raises(OAuthError) as caught:
            send(auth0, tenant)
        assert f"bad {' '.join(['***'] * len(seen))}" in str(caught.value)
        said = f"{caught.value}{caught.value.description}"
        assert not [secret for secret in seen.values() if secret in said]

    def test_the_browser_inherits_no_client_secret(self, cli, tenant, tmp_path):
        target = tmp_path / "home" / "environment"
        script = f"import os; open({str(target)!r}, 'w').write(repr(os.environ)); {OPEN}"
        secret = tenant.clients["practice-web"].client_secret
        env = {"AUTH0_CLIENT_ID": "practice-web", "AUTH0_CLIENT_SECRET": secret}
        env["BROWSER"] = browser_that_runs(script, tmp_path)
        running = cli.start("login", "--flow", "browser", env=env)
        url = next(line.strip() for line in iter(running.err.line, "") if "/authorize?" in line)
        tenant.wait_for(lambda: tenant.requests)
        tenant.login_as(url)
        running.finish()
        assert secret not in target.read_text()

    def test_a_secret_within_an_error_that_is_no_text_is_not_shown(self, tenant, call):
        secret = r"it's-\-hunter2-" + '"'
        for body in ({"error": {"sent": secret}}, {"error": "x", "message": {"sent": secret}}):
            tenant.break_all("/oauth/token", status=400, body=body)
            auth0 = Auth0(tenant.domain, "x", client_secret=secret, cache=MemoryCache())
            assert "hunter2" not in call("token", code=4, by=auth0).err

    def test_errors_that_caused_each_other_are_cleared_too(self, tenant):
        def read(key):
            first, second = ValueError("first"), ValueError("second")
            first.__cause__, second.__cause__ = second, first
            raise first

        cache = DictCache()
        cache.read = read
        with pytest.raises(CacheError) as caught:
            client(tenant, cache).get_token()
        first = caught.value.__cause__
        for error in (first, first.__cause__):
            assert (error.__traceback__, error.__context__) == (None, None)

    def test_a_problem_holds_no_frame(self):
        exchange = auth0_cli._HttpRequest("http://127.0.0.1:1", time.monotonic() + 5)
        exchange.run("POST", "/oauth/token", b"client_secret=x", {})
        assert isinstance(exchange.problem, OSError)
        assert exchange.problem.__traceback__ is None

    def test_what_a_cache_of_ones_own_says_is_not_shown(self, tenant, caplog):
        def write(key, data):
            raise ValueError(f"can't store {data}")

        cache = DictCache()
        auth0 = client(tenant, cache)
        log_in(auth0, tenant)
        cache.refuse_sessions(write)
        auth0.get_token(force_refresh=True)
        err = caplog.text
        assert "cache failed (write: ValueError)" in err
        assert not [secret for secret in tenant.secrets if secret in err]


# ---- Properties: HTTP ----------------------------------------------------------------------------


class TestHttp:
    """Servers and networks that are broken."""

    def test_a_request_that_hangs_does_not_keep_the_program_from_its_end(self, logged_in):
        script = """if True:
            import socket, threading, auth0_cli
            socket.getaddrinfo = lambda *_: threading.Event().wait()
            auth0_cli.REQUEST_SECONDS = 0.1
            try:
                auth0_cli.get_token(force_refresh=True)
            except auth0_cli.NetworkError as problem:
                print(problem)"""
        assert "did not answer within 0.1 s" in logged_in.python(script).finish().out

    def test_each_request_tells_who_asks_and_that_json_is_awaited(self, auth0, tenant):
        log_in(auth0, tenant)
        auth0.logout()
        assert len(tenant.requests) == 3
        for request in tenant.requests:
            assert request.headers["User-Agent"] == f"auth0_cli/{auth0_cli.__version__}"
            assert request.headers["Accept"] == "application/json"

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            *(("/oauth/token", status) for status in (301, 302, 303, 307, 308)),
            *(("/oauth/device/code", 307), ("/oauth/revoke", 308), ("/.well-known/jwks.json", 302)),
        ],
    )
    def test_a_redirect_is_followed_with_nothing(self, logged_in, tenant, call, path, status):
        with Tenant() as collector:
            for location in (collector.issuer + path[1:], path):
                headers = {"Location": location}
                tenant.break_next(path, status=status, headers=headers, body="Moved")
            asked = tenant.count(path)
            if path == "/oauth/token":
                call("token", "--force-refresh", code=5)
            elif path == "/oauth/device/code":
                call("login", "--flow", "device", code=5)
            elif path == "/oauth/revoke":
                assert "not revoked" in call("logout", code=5).err
            else:
                with pytest.raises(NetworkError):
                    log_in(client(tenant, logged_in.cache, profile="new"), tenant)
            assert collector.requests == []
            assert tenant.count(path) == asked + 1

    def test_a_redirect_is_called_one(self, logged_in, tenant, call):
        body = {"error": "invalid_grant"}
        tenant.break_all("/oauth/token", status=302, headers={"Location": "/x"}, body=body)
        assert "redirect" in call("token", "--force-refresh", code=5).err

    @table(
        "kind, body",
        {"named so": ("text/html", "Blocked by us"), "by its look": ("text/plain", "Oh <b>no</b>")},
    )
    def test_a_page_is_no_refusal(self, logged_in, tenant, call, kind, body):
        headers = {"Content-Type": kind}
        tenant.break_all("/oauth/token", status=403, headers=headers, body=body)
        err = call("token", "--force-refresh", code=5).err
        assert body not in err

    @table(
        "answer",
        {
            "echo": lambda data: data,
            "the body as a status line": lambda data: data.partition(b"\r\n\r\n")[2] + b"\r\n\r\n",
            "the body as the reason": lambda data: (
                b"HTTP/1.1 500 " + data.partition(b"\r\n\r\n")[2] + b"\r\n\r\n"
            ),
            "the body as a length": lambda data: (
                b"HTTP/1.1 200 OK\r\nContent-Length: " + data.partition(b"\r\n\r\n")[2]
            ),
            "the body as a chunk size": lambda data: (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                + data.partition(b"\r\n\r\n")[2]
                + b"\r\n"
            ),
            "nothing": lambda data: b"",
            "every byte": lambda data: bytes(range(256)) * 8,
            "HTTP/0.9": lambda data: b'{"access_token": "x"}',
            "HTTP/2": lambda data: b"HTTP/2.0 200 OK\r\n\r\n{}",
            "status 99": lambda data: b"HTTP/1.1 99 OK\r\n\r\n{}",
            "status 1000": lambda data: b"HTTP/1.1 1000 OK\r\n\r\n{}",
            "status 101": lambda data: b"HTTP/1.1 101 Switching Protocols\r\n\r\n{}",
            "status 101 with a token": lambda data: (
                b"HTTP/1.1 101 Switching Protocols\r\nTransfer-Encoding: chunked\r\n\r\n"
                b'2e\r\n{"access_token":"token","token_type":"bearer"}\r\n0\r\n\r\n'
            ),
            "100 without end": lambda data: b"HTTP/1.1 100 Continue\r\n\r\n" * 500,
            "headers without end": lambda data: b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000,
            "a header of 100 kB": lambda data: b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
            "escape sequences": lambda data: b"HTTP/1.1 \x1b[2J\x1b]0;x\x07\r\n\r\n",
            "a negative length": lambda data: b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "a negative chunk": lambda data: (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n"
            ),
            "a huge chunk": lambda data: (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}\r\n"
            ),
        },
    )
    def test_what_is_hardly_http_is_exit_5(self, call, hurried, tenant, answer):
        with raw_server(answer) as server:
            call("token", code=5, by=machine(f"http://127.0.0.1:{server.port}"))
        assert all(MACHINE_SECRET.encode() not in data for data in server.seen)

    def test_what_only_announces_the_answer_is_not_taken_for_it(self, call):
        token = b'{"access_token": "announced", "token_type": "Bearer", "expires_in": 60}'
        head = b"HTTP/1.1 100 Soon\r\nLink: </style.css>\r\n\r\nHTTP/1.1 200 OK\r\n"
        answer = head + b"Content-Length: %d\r\n\r\n" % len(token) + token
        with raw_server(lambda _: answer) as server:
            done = call("token", by=machine(f"http://127.0.0.1:{server.port}"))
        assert done.out == "announced\n"
        assert len(server.seen) == 1

    def test_an_answer_without_end_is_not_kept(self, call, hurried):
        sent = []

        def flood(_):
            yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"
            for _ in range(64):
                yield b"x" * (1 << 20)
                sent.append(1)

        with raw_server(flood) as server:
            call("token", code=5, by=machine(f"http://127.0.0.1:{server.port}"))
        assert len(sent) < 64

    def test_a_response_that_is_too_large_is_not_requested_again(self, tenant, call):
        tenant.break_all("/oauth/token", body=b" " * (2 << 20))
        assert "larger than 1 MiB" in call("token", code=5, by=machine(tenant.domain)).err
        assert tenant.count("/oauth/token") == 1

    def test_an_address_that_does_not_answer_is_not_the_last_one_tried(
        self, tenant, call, addresses, black_hole, monkeypatch
    ):
        addresses["localhost"] = ["2001:db8::1", "2001:db8::2", "192.0.2.1", "127.0.0.1"]
        sent, sendall = [], socket.socket.sendall

        def send(self, data):
            sent.append((data[:4], self.gettimeout()))
            sendall(self, data)

        monkeypatch.setattr(socket.socket, "sendall", send)
        addresses["localhost"].append("192.0.2.2")
        call("token", by=machine(f"http://localhost:{tenant.port}"))
        tried, limits = zip(*[each for each in black_hole if each[0] != "127.0.0.1"])
        assert tried == ("2001:db8::1", "192.0.2.1", "2001:db8::2")  # the families take turns
        assert max(limits) <= 2
        assert max(limit for data, limit in sent if data == b"POST") > 20
        assert len(tenant.requests) == 1

    def test_the_last_address_has_the_time_that_is_left(self, call, hurried, addresses, black_hole):
        addresses["localhost"] = ["192.0.2.1", "192.0.2.2"]
        err = call("token", code=5, by=machine("http://localhost:1")).err
        assert "localhost:1 did not answer within 30 s" in err
        assert [limit > 20 for _, limit in black_hole] == [False, True] * 3

    def test_an_address_of_a_kind_that_this_machine_lacks_is_passed_over(
        self, tenant, call, addresses, monkeypatch
    ):
        class OnlyIPv4(socket.socket):
            def __init__(self, family=-1, *rest, **more):
                if family == socket.AF_INET6:
                    raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
                super().__init__(family, *rest, **more)

        addresses["localhost"] = ["2001:db8::1", "127.0.0.1"]
        monkeypatch.setattr(socket, "socket", OnlyIPv4)
        call("token", by=machine(f"http://localhost:{tenant.port}"))
        assert len(tenant.requests) == 1

    def test_a_request_needs_no_thread(self, cli, tenant):
        script = (
            "import threading, auth0_cli\n"
            "def fail(*_):\n"
            "    raise RuntimeError('no thread can be started')\n"
            "threading.Thread.start = fail\n"
            "print(auth0_cli.get_token())\n"
        )
        running = cli.python(script, env=machine_environment(tenant))
        assert running.finish().out.strip() in tenant.access_tokens

    def test_the_time_for_a_request_bounds_all_its_retries(self, hurried):
        with raw_server(lambda _: b"HTTP/1.1 503 x\r\nRetry-After: 3\r\n\r\n") as server:
            tenant = auth0_cli._Tenant(f"http://127.0.0.1:{server.port}", "x", {}.get)
            with pytest.raises(NetworkError):
                tenant.post("/oauth/token", {}, "always", seconds=5)
        assert len(server.seen) == 2
        assert hurried.sleeps == [3]

    @table(
        "answer",
        {
            "a drip": lambda _: itertools.repeat(b"x"),
            "a body": lambda _: itertools.chain(
                [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"], itertools.repeat(b" ")
            ),
            "100 Continue": lambda _: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
            "trailers": lambda _: itertools.chain(
                [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"],
                itertools.repeat(b"X: y\r\n"),
            ),
        },
    )
    def test_nothing_goes_on_after_the_time_for_a_request(self, call, monkeypatch, answer):
        monkeypatch.setattr(auth0_cli, "REQUEST_SECONDS", 0.1)
        over = threading.Event()

        def slowly(data):
            try:
                for part in answer(data):
                    time.sleep(0.01)
                    yield part
            finally:
                over.set()

        with raw_server(slowly) as server:
            call("token", code=5, by=machine(f"http://127.0.0.1:{server.port}"))
            assert over.wait(10)

    @pytest.mark.parametrize("what", ["body", "headers"])
    def test_a_drip_ends_with_the_time_for_a_request(
        self, logged_in, tenant, call, monkeypatch, what
    ):
        monkeypatch.setattr(auth0_cli, "REQUEST_SECONDS", 0.2)
        before = logged_in.session_file.read_bytes()
        fault = {"drip": 0.05} if what == "headers" else {"body": b" " * 9999, "drip": 0.001}
        tenant.break_next("/oauth/token", **fault)
        call("token", "--force-refresh", code=5)
        assert logged_in.session_file.read_bytes() == before

    @table(
        "answer",
        {
            "one byte": [b"H"],
            "a head": [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"],
            "a body whose end is that of the connection": [b"HTTP/1.1 200 OK\r\n\r\n{}"],
        },
    )
    def test_a_tenant_that_never_answers_is_said_not_to(self, call, monkeypatch, answer):
        end = auth0_cli._HttpRequest.abandon

        def abandon(exchange):
            end(exchange)
            for _ in range(5000):  # until our own end of the connection has broken it
                if exchange.problem or exchange.status:
                    return
                time.sleep(0.001)

        monkeypatch.setattr(auth0_cli._HttpRequest, "abandon", abandon)
        monkeypatch.setattr(auth0_cli, "REQUEST_SECONDS", 0.2)
        over = threading.Event()

        def stall(_):
            yield from answer
            over.wait(10)

        with raw_server(stall) as server:
            err = call("token", code=5, by=machine(f"http://127.0.0.1:{server.port}")).err
            over.set()
        assert "did not answer within 0.2 s: try again" in err

    def test_an_unreachable_tenant_is_exit_5_and_ends_no_session(
        self, logged_in, tenant, call, hurried
    ):
        before = logged_in.session_file.read_bytes()
        token = call("token").out
        tenant.close()
        assert "try again" in call("token", "--force-refresh", code=5).err
        assert logged_in.session_file.read_bytes() == before
        assert call("token", "--min-ttl", "999999").out == token

    @table(
        "headers, requests, least",
        {
            "nothing said": ({}, 3, 0),
            "seconds": ({"Retry-After": "2"}, 3, 2),
            "none": ({"Retry-After": "0"}, 3, 0),
            "negative": ({"Retry-After": "-5"}, 3, 0),
            "words": ({"Retry-After": "soon"}, 3, 0),
            "a fraction": ({"Retry-After": "1.5"}, 3, 0),
            "too long": ({"Retry-After": "3600"}, 1, 0),
            "huge": ({"Retry-After": "9" * 400}, 1, 0),
            "a time": ({"x-ratelimit-reset": "{now:.0f}"}, 3, 0),
            "a time far off": ({"x-ratelimit-reset": "99999999999"}, 1, 0),
            "a date": ({"Retry-After": "{date}"}, 3, 1),
            "a date in the past": ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 3, 0),
            "a date without a zone": ({"Retry-After": "{asctime}"}, 3, 1),
            "a date that Python 3.9 fails at": ({"Retry-After": "Su. Nov  , 08:49:37 2030"}, 3, 0),
            "a date far off": ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, 1, 0),
            "no date": ({"Retry-After": "Wed, 41 Oct 2015 07:28:00 GMT"}, 3, 0),
        },
    )
    def test_a_rate_limit_is_waited_for_within_reason(
        self, logged_in, tenant, call, hurried, headers, requests, least
    ):
        later = time.time() + 2
        asctime = time.asctime(time.gmtime(later + 3))
        values = {
            "asctime": asctime,
            "now": later,
            "date": email.utils.formatdate(later + 3, usegmt=True),
        }
        headers = {name: value.format(**values) for name, value in headers.items()}
        tenant.break_all("/oauth/token", status=429, headers=headers, body={"error": "too_many"})
        assert "429" in call("token", "--force-refresh", code=5).err
        assert tenant.count("refresh_token") == requests
        assert len(hurried.sleeps) == requests - 1
        assert all(least <= seconds <= 30 for seconds in hurried.sleeps)

    def test_a_rate_limit_that_ends_costs_nothing_but_time(self, logged_in, tenant, call, hurried):
        tenant.break_next("/oauth/token", status=429, headers={"Retry-After": "1"})
        assert call("token", "--force-refresh").out.strip() in tenant.access_tokens
        assert tenant.count("refresh_token") == 2

    @pytest.mark.parametrize("fault", [{"close": "after"}, {"status": 500}, {"body": b"<"}, {}])
    def test_python_finds_nothing_left_open(self, logged_in, tenant, fault):
        if fault:
            tenant.break_all("/oauth/token", **fault)
        env = {"PYTHONDEVMODE": "1", "PYTHONFAULTHANDLER": "1"}
        result = logged_in.start("token", "--force-refresh", env=env).finish(5 if fault else 0)
        assert result.err.count("\n") == (1 if fault else 0)

    def test_nothing_is_sent_once_nobody_waits_for_the_answer(self, call, monkeypatch):
        over, ended = threading.Event(), threading.Event()
        connect, run = auth0_cli._HttpRequest._connect, auth0_cli._HttpRequest.run

        def late(request):
            connection = connect(request)
            assert over.wait(10)
            return connection

        monkeypatch.setattr(auth0_cli._HttpRequest, "_connect", late)
        monkeypatch.setattr(auth0_cli._HttpRequest, "abandon", lambda _: None)
        monkeypatch.setattr(
            auth0_cli._HttpRequest, "run", lambda *request: (run(*request), ended.set())
        )
        monkeypatch.setattr(auth0_cli, "REQUEST_SECONDS", 0.05)
        with raw_server(lambda _: b"") as server:
            call("token", code=5, by=machine(f"http://127.0.0.1:{server.port}"))
            over.set()
            assert ended.wait(10)
        assert not any(server.seen)

    @pytest.mark.parametrize("value", [b"\xb2", b"\xb9\xb2", b"1\xb2"])
    def test_a_digit_of_latin_1_is_no_number_of_seconds(self, call, hurried, value):
        answer = b"HTTP/1.1 429 x\r\nContent-Length: 0\r\nRetry-After: " + value + b"\r\n\r\n"
        with raw_server(lambda _: answer) as server:
            call("token", code=5, by=machine(f"http://127.0.0.1:{server.port}"))
        assert len(server.seen) == 3

    @table(
        "headers, least, most",
        {
            "a long number": ({"Retry-After": "9" * 400}, 1e9, 1e12),
            "a time that has passed": ({"x-ratelimit-reset": "1000"}, 0, 0),
        },
    )
    def test_the_seconds_to_wait_can_be_waited_for(self, tenant, hurried, headers, least, most):
        tenant.break_all("/oauth/token", status=429, headers=headers)
        with pytest.raises(NetworkError) as caught:
            machine(tenant.domain).get_token()
        assert least <= caught.value.retry_after <= most

    def test_a_limit_that_was_not_exceeded_is_not_waited_for(self, tenant, hurried):
        headers = {"x-ratelimit-remaining": "9", "x-ratelimit-reset": str(int(time.time()) + 600)}
        tenant.break_next("/oauth/token", status=503, headers=headers)
        assert machine(tenant.domain).get_token() in tenant.access_tokens
        assert hurried.sleeps == [0.3]
        body = {"error": "access_denied"}
        tenant.break_next("/oauth/token", status=403, headers=headers, body=body)
        with pytest.raises(OAuthError) as caught:
            machine(tenant.domain).get_token()
        assert not caught.value.retry_after

    @pytest.mark.parametrize("status", [201, 403, 500])
    def test_keys_beside_another_status_are_none(self, auth0, tenant, hurried, status):
        body = {"keys": [KEY]}
        tenant.break_all("/.well-known/jwks.json", status=status, body=body)
        with pytest.raises(NetworkError):
            log_in(auth0, tenant)
        assert auth0.session() is None

    def test_a_connection_that_is_refused_is_tried_again(self, auth0, tenant, hurried):
        tenant.close()
        with pytest.raises(NetworkError):
            auth0.grant("urn:ietf:params:oauth:grant-type:token-exchange")
        assert len(hurried.sleeps) == 2


class TestCertificates:
    """Whose word counts for who the server is."""

    def test_a_certificate_that_nobody_vouches_for_is_refused(self, tenant, tls, call, monkeypatch):
        domain = f"localhost:{tenant.port}"
        assert "is not trusted" in call("token", code=2, by=machine(domain)).err
        monkeypatch.setenv("SSL_CERT_FILE", auth0_cli.__file__)
        assert "no file with certificates" in call("token", code=2, by=machine(domain)).err
        assert tenant.requests == []

    def test_a_certificate_of_ones_own_is_trusted_for_its_name(
        self, tenant, tls, call, monkeypatch
    ):
        monkeypatch.setenv("SSL_CERT_FILE", str(tls))
        token = call("token", by=machine(f"localhost:{tenant.port}")).out.strip()
        assert token in tenant.access_tokens
        tenant.requests.clear()
        err = call("token", code=2, by=machine(f"127.0.0.1:{tenant.port}")).err
        assert "is not trusted" in err
        assert "check domain" in err
        assert tenant.requests == []

    def test_the_certificate_of_a_server_counts_as_one(self, tenant, tls, call, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.with_name("chain.pem")))
        pinned = sys.version_info >= (3, 13)  # it is trusted there, and elsewhere if self-signed
        err = call("token", code=0 if pinned else 2, by=machine(f"localhost:{tenant.port}")).err
        assert pinned or "is not trusted" in err

    def test_the_ca_of_a_company_need_not_be_strict(self, tenant, tls, call, monkeypatch):
        create = ssl.create_default_context

        def as_in_python_3_13():
            context = create()
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            return context

        monkeypatch.setattr(ssl, "create_default_context", as_in_python_3_13)
        monkeypatch.setenv("SSL_CERT_FILE", str(tls))
        call("token", by=machine(f"localhost:{tenant.port}"))

    @pytest.mark.parametrize("value", ["", "/of-last-year" + ESCAPES.replace("\0", "")])
    def test_a_setting_that_names_no_certificates_is_shown(
        self, tenant, tls, call, monkeypatch, value
    ):
        monkeypatch.setenv("SSL_CERT_FILE", value)
        err = call("token", code=2, by=machine(f"localhost:{tenant.port}")).err
        assert f"SSL_CERT_FILE={value[:13]}" in err

    def test_root_certificates_of_the_system_are_named(self, tenant, tls, call, monkeypatch):
        monkeypatch.setattr(auth0_cli, "_ROOT_FILES", ["/missing.crt", str(tls)])
        domain = f"localhost:{tenant.port}"
        err = call("token", code=2, by=machine(domain)).err
        assert "to the certificates of your company's proxy" in err
        assert f"or to {tls} if this Python has no root certificates" in err
        monkeypatch.setenv("SSL_CERT_FILE", str(tls))
        call("token", by=machine(domain))

    def test_a_certificate_that_is_no_longer_trusted_costs_no_valid_token(
        self, tenant, tls, hurried, monkeypatch
    ):
        monkeypatch.setenv("SSL_CERT_FILE", str(tls))
        auth0 = machine(f"localhost:{tenant.port}")
        token = auth0.get_token()
        monkeypatch.delenv("SSL_CERT_FILE")
        hurried.sleep(100)
        almost_all = auth0.session().tokens[0]["expires_in"] + 50
        assert auth0.get_token(min_ttl=almost_all) == token
        with pytest.raises(ConfigError, match="not trusted"):
            auth0.get_token(force_refresh=True)

    def test_tls_to_a_port_that_speaks_none_is_no_answer(self, tenant, call, hurried):
        call("token", code=5, by=machine(f"127.0.0.1:{tenant.port}"))
        assert tenant.requests == []

    def test_a_certificate_is_not_tried_again(self, tenant, tls, call):
        lines = []
        auth0 = machine(f"localhost:{tenant.port}")
        auth0._arguments["trace"] = lines.append
        with pytest.raises(ConfigError, match="certificate"):
            auth0.get_token()
        assert len(lines) == 1

    def test_no_old_tls_is_spoken(self, tenant, tls, call, monkeypatch):
        contexts, create = [], ssl.create_default_context

        def lenient():
            contexts.append(create())
            contexts[-1].minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            return contexts[-1]

        monkeypatch.setattr(ssl, "create_default_context", lenient)
        call("token", code=2, by=machine(f"localhost:{tenant.port}"))
        assert [context.minimum_version for context in contexts] == [ssl.TLSVersion.TLSv1_2]

    @pytest.mark.parametrize("content", [None, "", "not a certificate"])
    def test_certificates_that_are_not_there_are_exit_2(self, call, tmp_path, monkeypatch, content):
        path = tmp_path / "roots.pem"
        if content is not None:
            path.write_text(content)
        monkeypatch.setenv("SSL_CERT_FILE", str(path) if content is None or content else "")
        err = call("token", code=2, by=machine("localhost:9")).err
        assert "SSL_CERT_FILE" in err


def variable(name):
    """Spell the name of an environment variable as the system does."""
    return name if POSIX else name.upper()


class TestProxies:
    """Which proxy is used, and what it learns."""

    @pytest.fixture(autouse=True)
    def few_roots(self, monkeypatch, tmp_path):
        """Let one root certificate do: reading all of the system takes a while."""
        (tmp_path / "roots.pem").write_text(CA_PEM)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))

    @table(
        "answer, words",
        {
            "refuses": (b"HTTP/1.1 403 Forbidden\r\n\r\n", "the proxy answered HTTP 403"),
            "redirects": (
                b"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\n\r\n",
                "the proxy answered HTTP 302",
            ),
            "shows a page": (b"HTTP/1.1 200 OK\r\n\r\n<html>Log in to the Wi-Fi</html>", ""),
            "hangs up": (b"", "closed connection"),
        },
    )
    def test_a_proxy_sees_no_secret_and_breaks_nothing(
        self, call, hurried, monkeypatch, answer, words
    ):
        with raw_server(lambda _: answer) as proxy:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
            err = call("token", code=5, by=machine("acme.example.test")).err
        assert f"proxy 127.0.0.1:{proxy.port}" in err
        assert words in err
        assert proxy.seen
        for data in proxy.seen:
            line, host, *_ = data.split(b"\r\n")
            assert line == b"CONNECT acme.example.test:443 HTTP/1.1"
            assert host == b"Host: acme.example.test:443"
            assert b"machine-secret" not in data

    def test_a_proxy_gets_its_login_and_can_not_have_it_shown(self, call, hurried, monkeypatch):
        sign = base64.b64encode(b"me:proxy-pass word").decode()

        def repeat(data):
            return b"HTTP/1.1 403 " + data.partition(b"Proxy-Authorization: ")[2]

        with raw_server(repeat) as proxy:
            monkeypatch.setenv("https_proxy", f"http://me:proxy-pass%20word@127.0.0.1:{proxy.port}")
            err = call("token", code=5, by=machine("acme.example.test")).err
        assert f"Proxy-Authorization: Basic {sign}".encode() in proxy.seen[0]
        assert sign not in err
        assert "proxy-pass" not in err

    @table(
        "user_info, words",
        {
            "without a login": ("", "wants a login"),
            "with a wrong login": ("me:proxy-pass@", "refused the user name or password"),
        },
    )
    def test_a_proxy_that_wants_a_login_is_asked_once(self, call, monkeypatch, user_info, words):
        with raw_server(lambda _: b"HTTP/1.1 407 No proxy-pass\r\n\r\n") as proxy:
            monkeypatch.setenv("https_proxy", f"http://{user_info}127.0.0.1:{proxy.port}")
            err = call("token", code=2, by=machine("acme.example.test")).err
        assert f"{words}: set {variable('https_proxy')}=http://USER:PASSWORD@HOST:PORT" in err
        assert "proxy-pass" not in err
        assert len(proxy.seen) == 1

    @table(
        "scheme, user_info, login",
        {
            "every delimiter": ("", "me:a#b@c:d/e?f", "me:a#b@c:d/e?f"),
            "every delimiter, a scheme": ("http://", "me:a#b@c:d/e?f", "me:a#b@c:d/e?f"),
            "escapes": ("HTTP://", "m%65:%40%2f%23%25", "me:@/#%"),
            "a percent sign": ("", "me:100%", "me:100%"),
            "another scheme": ("", "me:x://y", "me:x://y"),
            "two schemes": ("http://", "me:x://y", "me:x://y"),
            "letters": ("http://", "mé:ü", "mé:ü"),
            "a user only": ("", "me", "me:"),
        },
    )
    def test_a_password_of_a_proxy_may_hold_any_character(
        self, call, hurried, monkeypatch, user_info, login, scheme
    ):
        with raw_server(lambda _: b"") as proxy:
            monkeypatch.setenv("https_proxy", f"{scheme}{user_info}@127.0.0.1:{proxy.port}/")
            call("token", code=5, by=machine("acme.example.test"))
        sign = base64.b64encode(login.encode())
        assert b"Proxy-Authorization: Basic " + sign + b"\r\n" in proxy.seen[0]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("https_proxy", "https://me:proxy-pass@127.0.0.1:{}"),
            ("HTTPS_PROXY", "socks5h://me:proxy-pass@127.0.0.1:{}"),
            ("ALL_PROXY", "what://127.0.0.1:{}"),
            ("https_proxy", "http://me:proxy-pass@127.0.0.1:{}0000"),
            ("HTTPS_PROXY", "http://127.0.0.1:0"),
            ("ALL_PROXY", "http://me:proxy-pass"),
            ("https_proxy", "http://"),
        ],
    )
    def test_a_proxy_of_another_kind_is_refused_before_it_receives_anything(
        self, call, monkeypatch, name, value
    ):
        with raw_server(lambda _: b"") as proxy:
            monkeypatch.setenv(name, value.format(proxy.port))
            err = call("token", code=2, by=machine("acme.example.test")).err
        assert f"correct {variable(name)}, or list acme.example.test in NO_PROXY" in err
        assert "proxy-pass" not in err
        assert proxy.seen == []

    @table(
        "settings, asked",
        {
            "no port": ({"HTTPS_PROXY": "http://proxy.test"}, ("proxy.test", 80)),
            "no scheme": ({"HTTPS_PROXY": "proxy.test:3128"}, ("proxy.test", 3128)),
            "white space": ({"HTTPS_PROXY": " http://proxy.test:3128 "}, ("proxy.test", 3128)),
            "a path": ({"HTTPS_PROXY": "http://proxy.test:3128/x"}, ("proxy.test", 3128)),
            "IPv6": ({"HTTPS_PROXY": "http://[2001:db8::9]:3128"}, ("2001:db8::9", 3128)),
            "IPv6 without a port": ({"HTTPS_PROXY": "http://[2001:db8::9]"}, ("2001:db8::9", 80)),
            "for all": ({"ALL_PROXY": "http://proxy.test:1"}, ("proxy.test", 1)),
            "both": (
                {"ALL_PROXY": "http://all.test:1", "HTTPS_PROXY": "http://proxy.test:2"},
                ("proxy.test", 2),
            ),
            "an empty one": ({"HTTPS_PROXY": "", "all_proxy": "proxy.test:1"}, ("proxy.test", 1)),
            "a blank one": ({"HTTPS_PROXY": " "}, ("acme.example.test", 443)),
            "for http": ({"HTTP_PROXY": "http://proxy.test"}, ("acme.example.test", 443)),
        },
    )
    def test_the_proxy_of_the_environment_is_asked(
        self, call, hurried, addresses, monkeypatch, settings, asked
    ):
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        err = call("token", code=5, by=machine("acme.example.test")).err
        assert set(addresses.looked_up) == {asked}
        assert re.search(rf"the host \[?{asked[0]}\]?(:\d+)? was not found", err)

    @not_on_windows("to Windows both spellings are one variable")
    def test_the_spelling_that_sets_the_proxy_is_the_one_that_is_named(self, call, monkeypatch):
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test")
        monkeypatch.setenv("https_proxy", "socks5://proxy.test")
        assert "correct https_proxy," in call("token", code=2, by=machine("acme.example.test")).err

    def test_exceptions_of_the_system_name_hosts_without_a_port(
        self, call, hurried, addresses, monkeypatch
    ):
        excluded = "acme.example.test".__eq__
        monkeypatch.setattr("urllib.request.proxy_bypass", excluded)
        monkeypatch.setenv("https_proxy", "http://proxy.test")
        call("token", code=5, by=machine("acme.example.test"))
        assert set(addresses.looked_up) == {("acme.example.test", 443)}

    @needs_fork
    def test_a_forked_child_reads_no_proxy_settings_of_the_system(self, cli):
        script = (
            "import os, sys, urllib.request, auth0_cli\n"
            "sys.platform = 'darwin'\n"  # whose system framework crashes a forked child
            "urllib.request.getproxies = urllib.request.proxy_bypass = lambda *_: os._exit(9)\n"
            "child = os.fork()\n"
            "if child:\n"
            "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
            "print(auth0_cli._find_proxy('acme.example.test'), flush=True)\n"
        )
        running = cli.python(script, env={"https_proxy": "http://127.0.0.1:1"})
        assert running.finish().out == "('https_proxy', '127.0.0.1', 1, '')\n"

    def test_this_machine_is_never_asked_through_a_proxy(self, tenant, call, monkeypatch):
        with raw_server(lambda _: b"") as proxy:
            for name in ("http_proxy", "https_proxy", "all_proxy"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            call("token", by=machine(tenant.domain))
        assert proxy.seen == []

    def test_this_machine_is_not_asked_through_a_proxy_by_tls_either(
        self, tenant, tls, call, monkeypatch
    ):
        monkeypatch.setenv("SSL_CERT_FILE", str(tls))
        with raw_server(lambda _: b"") as proxy:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
            call("token", by=machine(f"localhost:{tenant.port}"))
        assert proxy.seen == []

    @pytest.mark.parametrize(
        "listed", [".example.test", "other.test, ACME.example.test", "acme.example.test:443", "*"]
    )
    def test_no_proxy_is_obeyed(self, call, hurried, addresses, monkeypatch, listed):
        monkeypatch.setenv("no_proxy", listed)
        monkeypatch.setenv("https_proxy", "http://proxy.test")
        call("token", code=5, by=machine("acme.example.test"))
        assert set(addresses.looked_up) == {("acme.example.test", 443)}

    @pytest.mark.parametrize("listed", ["example.org", "acme.example.test:8443", ""])
    def test_no_proxy_names_other_hosts_and_ports(
        self, call, hurried, addresses, monkeypatch, listed
    ):
        monkeypatch.setenv("no_proxy", listed)
        monkeypatch.setenv("https_proxy", "http://proxy.test")
        call("token", code=5, by=machine("acme.example.test"))
        assert set(addresses.looked_up) == {("proxy.test", 80)}
        monkeypatch.setenv("no_proxy", "acme.example.test:8443")
        addresses.looked_up.clear()
        call("token", code=5, by=machine("acme.example.test:8443"))
        assert set(addresses.looked_up) == {("acme.example.test", 8443)}

    def test_a_proxy_of_several_addresses_is_reached(
        self, call, hurried, addresses, black_hole, monkeypatch
    ):
        addresses["proxy.test"] = ["192.0.2.1", "127.0.0.1"]
        with raw_server(lambda _: b"") as proxy:
            monkeypatch.setenv("https_proxy", f"http://proxy.test:{proxy.port}")
            call("token", code=5, by=machine("acme.example.test"))
        assert proxy.seen[0].startswith(b"CONNECT acme.example.test:443 ")


# ---- Properties: Token requests ------------------------------------------------------------------


REFUSALS = {  # what the token endpoint says with an OAuth error, or so that it can't be used
    "error in a 200": {"body": {"error": "invalid_request"}},
    "error that is no text": {"status": 400, "body": {"error": {"a": 1}}},
    "error in a list": {"status": 400, "body": {"error": ["a"]}},
    "error without description": {"status": 401, "body": {"error": "invalid_client"}},
    "description that is no text": {
        "status": 400,
        "body": {"error": "x", "error_description": ["a"]},
    },
    "no error in a 400": {"status": 400, "body": {}},
    "error in Auth0's other shape": {
        "status": 400,
        "body": {"statusCode": 400, "errorCode": "invalid_body", "message": "why"},
    },
    "text in a 400": {"status": 400, "body": "Bad Request"},
    "418": {"status": 418, "body": {"error": "teapot"}},
}


def replies(**values):
    """Return for each odd value of a member the fault that sends it."""
    return {
        f"{name} {value!r:.20}": {"change": lambda reply, n=name, v=value: changed(reply, n, v)}
        for name, several in values.items()
        for value in several
    }


REFUSALS.update(
    replies(
        access_token=[
            MISSING,
            None,
            "",
            7,
            True,
            ["a"],
            {"a": 1},
            "a b",
            "a\n",
            "\r\nX: y",
            "é",
            "a\x00b",
            "a\x7f",
            "x" * 200000,
        ],
        token_type=[MISSING, None, "", "mac", "DPoP", "Bearer ", 7, ["Bearer"]],
        expires_in=[None, "", "soon", "-1", "1.5", "٣", -1, 0, True, [3600], {"a": 1}, 10**30],
        refresh_token=["", 7, True, ["a"], "a\nb", "é"],
        scope=[7, ["openid"], {}],
    )
)
del REFUSALS["expires_in None"]  # the same as none
ODDITIES = replies(
    token_type=["bearer", "BEARER", "bEaReR"],
    expires_in=[MISSING, None, "86400", 3600.5, 1, 1e17],
    scope=[MISSING, None, "", ESCAPES],
    refresh_token=[MISSING, None],
    id_token=[MISSING, None],
    anything_else=[ESCAPES, {"a": [None]}, 1e300],
)
LOST = ("half of it", "closed before", "closed after", "more announced than sent")
LOST += ("an unfinished chunk",)


class TestTokenRequests:
    """Responses of the token endpoint that are odd, wrong or lost."""

    def test_an_error_beside_a_token_is_an_error(self, logged_in, tenant, call):
        change = {"change": lambda reply: {**reply, "error": "access_denied"}}
        tenant.break_all("/oauth/token", **change)
        assert "access_denied" in call("token", "--force-refresh", code=4).err

    def test_a_code_beside_a_token_is_no_error(self, logged_in, tenant, call):
        change = {"change": lambda reply: {**reply, "code": "x", "errorCode": "y"}}
        tenant.break_next("/oauth/token", **change)
        assert call("token", "--force-refresh").out.strip() in tenant.access_tokens

    @pytest.mark.parametrize(("depth", "code"), [(100, 0), (101, 5)])
    def test_an_answer_is_read_if_it_is_nested_up_to_a_hundred_deep(
        self, logged_in, tenant, call, hurried, depth, code
    ):
        nested = functools.reduce(lambda inner, _: [inner], range(depth - 1), "x")
        tenant.break_next("/oauth/token", change=lambda reply: {**reply, "x": nested})
        result = call("token", "--force-refresh", code=code)
        assert ("did not answer like Auth0" in result.err) is bool(code)

    @pytest.mark.parametrize("name", NO_OBJECT)
    def test_an_answer_that_makes_no_sense_is_exit_5(self, logged_in, tenant, call, hurried, name):
        before = logged_in.session_file.read_bytes()
        tenant.break_all("/oauth/token", **NO_OBJECT[name])
        call("token", "--force-refresh", code=5)
        assert logged_in.session_file.read_bytes() == before
        # Asked for again without need, the token might be taken for stolen.
        assert tenant.count("refresh_token") == (2 if name in LOST else 1)
        assert call("token").out.strip() in tenant.access_tokens

    def test_a_code_is_not_sent_again_if_the_connection_broke_as_it_was_sent(
        self, auth0, tenant, hurried, monkeypatch
    ):
        def send(connection, data):
            true(connection, data)
            if b"code_verifier" in data:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

        true = HTTPConnection.send
        monkeypatch.setattr(HTTPConnection, "send", send)
        with pytest.raises(NetworkError, match=os.strerror(errno.ECONNRESET)):
            log_in(auth0, tenant, flow="browser")
        tenant.wait_for(lambda: tenant.count("authorization_code"))
        assert hurried.sleeps == []

    def test_a_refresh_token_is_not_sent_again_after_an_answer_that_is_not_http(self, tenant):
        cache = MemoryCache()
        log_in(client(tenant, cache), tenant)
        (key,) = cache.list()
        with raw_server(lambda data: b"SSH-2.0-OpenSSH_9.9\r\n") as server:
            old, new = str(urlsplit(tenant.domain).port), str(server.port)
            cache.write(key.replace(old, new), cache.read(key).replace(old.encode(), new.encode()))
            cache.delete(key)
            with pytest.raises(NetworkError, match="not HTTP"):
                Auth0(cache=cache).get_token(force_refresh=True)
        assert len(server.seen) == 1

    @pytest.mark.parametrize("close", ["before", "after", "middle"])
    def test_a_lost_answer_is_asked_for_once_more_within_the_overlap(
        self, logged_in, tenant, call, hurried, close
    ):
        tenant.leeway = 60
        tenant.break_next("/oauth/token", close=close)
        assert call("token", "--force-refresh").out.strip() in tenant.access_tokens
        assert tenant.count("refresh_token") == 2
        assert call("token", "--force-refresh").out.strip() in tenant.access_tokens

    def test_what_can_not_be_told_costs_no_answer(self, logged_in, tenant, hurried, monkeypatch):
        def fail(_):
            raise BrokenPipeError

        logged_in.expire()
        headers = {"Retry-After": "5"}
        tenant.break_next("/oauth/token", status=429, body={"error": "too_many"}, headers=headers)
        text_only = SimpleNamespace(write=fail, flush=lambda: None)  # as programs with windows have
        monkeypatch.setattr(sys, "stderr", text_only)
        program = client(tenant, logged_in.cache, trace=fail)
        assert program.get_token() in tenant.access_tokens
        assert program.get_token(force_refresh=True) in tenant.access_tokens
        assert hurried.sleeps == [5]

    def test_a_lost_answer_without_an_overlap_is_exit_3(self, logged_in, tenant, call, hurried):
        tenant.break_next("/oauth/token", close="after")
        assert "login" in call("token", "--force-refresh", code=3).err
        assert tenant.count("refresh_token") == 2

    @table("fault", REFUSALS)
    def test_an_answer_that_can_not_be_used_is_exit_4(self, logged_in, tenant, call, fault):
        before = json.loads(logged_in.session_file.read_text())
        tenant.break_all("/oauth/token", **fault)
        call("token", "--force-refresh", code=4)
        after = json.loads(logged_in.session_file.read_text())
        assert after["tokens"] == before["tokens"]
        assert after["refresh_token"]
        assert call("token").out.strip() in tenant.access_tokens

    @table("fault", ODDITIES)
    def test_an_answer_that_is_only_odd_is_taken(self, logged_in, tenant, call, fault):
        tenant.leeway = 60  # the old refresh token stays good where the answer holds no new one
        tenant.break_next("/oauth/token", **fault)
        value = json.loads(call("token", "--force-refresh", "--json").out)
        assert value["access_token"] in tenant.access_tokens
        assert value["token_type"] == "Bearer"
        assert 0 <= value["expires_in"] <= 366 * 86400
        assert value["scope"].isprintable()
        call("token", "--force-refresh")

    def test_a_third_party_application_without_a_client_grant_is_told_so(self, tenant, call):
        body = {"error": "unauthorized_client", "error_description": "Not allowed"}
        tenant.break_all("/oauth/token", status=403, body=body)
        auth0 = machine(tenant.domain)
        assert "Grant Types" in call("token", code=4, by=auth0).err
        auth0 = Auth0(tenant.domain, "tpc_1", client_secret=MACHINE_SECRET, cache=MemoryCache())
        assert "authorize the application for that API" in call("token", code=4, by=auth0).err

    @pytest.mark.parametrize("code", ["server_error", "temporarily_unavailable"])
    def test_a_refusal_that_passes_is_exit_5(self, tenant, call, waiting, code):
        tenant.break_next("/oauth/token", status=400, body={"error": code})
        assert code in call("token", code=5, by=machine(tenant.domain)).err
        waiting.follow(waiting.get(f"/callback?error={code}&state={waiting.state}"))
        with pytest.raises(NetworkError, match="try again later") as caught:
            waiting.result()
        assert caught.value.error == code

    def test_the_code_of_a_limit_is_told(self, tenant, cli):
        tenant.break_next("/oauth/token", status=429, body={"error": "too_many_attempts"})
        command = ["login", "--json", "--flow", "password", "--username", "alice"]
        end = event_of(cli.run(*command, stdin="wonderland-1\n", exit=5))
        assert end["error"] == "too_many_attempts"

    @table(
        "fault",
        {
            "500": {"status": 500},
            "503": {"status": 503, "headers": {"Retry-After": "1"}},
            "closed before": {"close": "before"},
            "closed after": {"close": "after"},
            "closed amid": {"close": "middle"},
        },
    )
    def test_a_machine_asks_again_since_that_harms_nobody(self, tenant, call, hurried, fault):
        tenant.break_next("/oauth/token", **fault)
        assert call("token", by=machine(tenant.domain)).out.strip() in tenant.access_tokens
        assert tenant.count("client_credentials") == 2

    def test_a_lifetime_of_5000_digits_is_taken_for_a_long_one(self, logged_in, tenant, call):
        tenant.break_next("/oauth/token", change=lambda r: {**r, "expires_in": "9" * 5000})
        value = json.loads(call("token", "--force-refresh", "--json").out)
        assert value["expires_in"] <= 366 * 86400

    def test_a_token_lives_from_before_it_was_asked_for(self, tenant, hurried):
        def slowly(reply):
            hurried.sleep(20)  # less than a request may take
            return reply

        begun = time.time()
        tenant.break_next("/oauth/token", change=slowly)
        auth0 = machine(tenant.domain)
        auth0.get_token()
        (token,) = auth0.session().tokens
        assert token["expires_at"] <= begun + tenant.access_ttl + 10


# ---- Properties: Loopback listener ---------------------------------------------------------------


def queries(**values):
    """Return for each query what asks for it with the state of the login, and is no answer."""
    return {
        f"query with {name.replace('_', ' ')}": (
            400,
            lambda login, query=query: login.request(
                f"/callback?{query.format(state=login.state)}"
            ),
        )
        for name, query in values.items()
    }


STRAYS = {  # id -> status (None: any or none), function from the login to the bytes of the request
    **queries(
        another_state="code=c&state=" + "x" * 43,
        a_state_with_one_character_more="code=c&state={state}1",
        a_state_that_is_not_ASCII="code=c&state=%C3%A9",
        an_empty_state="code=c&state=",
        no_state="code=c",
        nothing="",
        the_state_only="state={state}",
        the_state_twice="code=c&state={state}&state={state}",
        two_states="code=c&state=x&state={state}",
        the_code_twice="code=c&code=d&state={state}",
        the_issuer_twice="code=c&state={state}&iss=a&iss=b",
        the_error_twice="error=a&state={state}&error=b",
        two_descriptions="error=a&state={state}&error_description=b&error_description=",
        code_and_error="code=c&error=access_denied&state={state}",
        an_empty_code="code=&state={state}",
        an_error_without_state="error=access_denied",
        an_error_and_another_state="error=access_denied&state=x",
        a_code_that_is_not_UTF_8="code=%FF&state={state}",
        a_state_that_is_not_UTF_8="code=c&state={state}%FF",
        semicolons="code=c;state={state}",
    ),
    **{
        f"GET {path}": (
            404,
            lambda login, path=path: login.request(f"{path}?code=c&state={login.state}"),
        )
        for path in (
            "/",
            "/favicon.ico",
            "/callback/",
            "/Callback",
            "/callback.",
            "/x/callback",
            "/%63allback",
            "/done",
            "/cancel",
            "*",
            "http://127.0.0.1/callback",
            "/<script>alert(1)",
        )
    },
    **{
        method: (
            405,
            lambda login, method=method: login.request(
                f"/callback?code=c&state={login.state}", method=method
            ),
        )
        for method in ("POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "get", "<script>")
    },
    **{
        f"host {host}": (
            400,
            lambda login, host=host: login.request(
                f"/callback?code=c&state={login.state}", host=host.format(port=login.port)
            ),
        )
        for host in (
            "evil.example",
            "evil.example:{port}",
            "localhost:{port}",
            "127.0.0.1:1",
            "127.0.0.1",
            "127.0.0.1.evil.example:{port}",
            "[::1]:{port}",
            "127.0.0.1:{port}0",
        )
    },
    "no host": (
        400,
        lambda login: f"GET /callback?code=c&state={login.state} HTTP/1.1\r\n\r\n".encode(),
    ),
    "two hosts": (
        400,
        lambda login: login.request(f"/callback?code=c&state={login.state}", "Host: evil.example"),
    ),
    "preflight of another origin": (
        405,
        lambda login: login.request("/callback", "Origin: https://evil.example", method="OPTIONS"),
    ),
    "a line of 100 kB": (None, lambda login: login.request("/" + "x" * 100_000)),
    "a header of 100 kB": (None, lambda login: login.request("/", "X: " + "x" * 100_000)),
    "1000 headers": (None, lambda login: login.request("/", *["X: y"] * 1000)),
    "half a line": (None, lambda login: b"GET /callback?code=c&state="),
    "half a head": (None, lambda login: login.request("/callback")[:-2]),
    "a bare newline": (None, lambda login: b"\r\n"),
    "HTTP/0.9": (None, lambda login: f"GET /callback?code=c&state={login.state}\r\n".encode()),
    "HTTP/2": (None, lambda login: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/9": (None, lambda login: login.request("/", version="HTTP/9.9")),
    "TLS": (None, lambda login: bytes.fromhex("16030100c8010000c40303") + b"\r\n" * 100),
    "every byte": (None, lambda login: bytes(range(256)) * 64),
    "a second request behind it": (
        404,
        lambda login: (
            login.request("/", "Connection: keep-alive")
            + login.request(f"/callback?code=c&state={login.state}")
        ),
    ),
}


class TestLoopbackListener(Shared):
    @table("status, build", STRAYS)
    def test_what_is_not_the_answer_changes_nothing(self, waiting, status, build):
        answer = receive(send(waiting.port, build(waiting)))
        assert status in (None, answer.status)
        assert "<script" not in answer.text
        assert waiting.state not in answer.text
        waiting.succeed()

    def test_a_state_of_an_earlier_login_is_not_the_answer(self, auth0, tenant, waiting):
        earlier = waiting.state
        waiting.succeed()
        now = WaitingLogin(auth0, tenant)
        assert now.state != earlier
        assert now.get(f"/callback?code=c&state={earlier}").status == 400
        now.succeed()

    def test_two_logins_at_once_do_not_take_the_answers_of_each_other(self, auth0, tenant, waiting):
        other = WaitingLogin(auth0, tenant)
        assert other.port != waiting.port
        query = urlsplit(answer_of(tenant, other.url)).query
        assert waiting.get(f"/callback?{query}").status == 400
        waiting.succeed()
        other.succeed()

    def test_a_page_s_style_is_the_one_that_its_policy_allows(self, waiting):
        answer = waiting.get("/nothing")
        style = re.search("<style>(.*?)</style>", answer.text, re.DOTALL)[1]
        allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = answer.headers["Content-Security-Policy"]
        assert f"style-src 'sha256-{allowed}'" in policy
        assert "frame-ancestors 'none'" in policy

    def test_of_too_many_connections_the_new_ones_are_closed(self, waiting, exchange, tenant):
        first = exchange.begin()
        with contextlib.ExitStack() as stack:
            connect = functools.partial(socket.create_connection, timeout=10)
            address = ("127.0.0.1", waiting.port)
            silent = [stack.enter_context(connect(address)) for _ in range(80)]
            with contextlib.suppress(ConnectionError):  # closed, one way or the other
                assert silent[-1].recv(1) == b""
            silent[0].sendall(waiting.request("/x"))
            assert receive(silent[0]).status == 404
        assert any(waiting.get("/x").status == 404 for _ in range(1000))  # there is room again
        exchange.end()
        assert "You are logged in" in waiting.follow(receive(first)).text
        assert waiting.result().user["sub"] == "auth0|alice"

    def test_many_requests_take_no_result_from_the_browser(self, waiting, exchange):
        first = exchange.begin()
        assert [waiting.get("/done").status for _ in range(70)] == [404] * 70
        exchange.end()
        assert "You are logged in" in waiting.follow(receive(first)).text
        waiting.result()

    def test_connections_that_stay_silent_hold_up_nothing(self, waiting):
        with contextlib.ExitStack() as stack:
            for number in range(60):
                address = ("127.0.0.1", waiting.port)
                connection = stack.enter_context(socket.create_connection(address, timeout=10))
                connection.sendall(b"GET /callback?code=c HTTP/1.1\r\nHost: "[: number % 40])
            waiting.succeed()

    def test_a_connection_that_is_reset_changes_nothing(self, waiting, capsys):
        for data in (
            b"",
            b"GET /callb",
            waiting.request("/"),
            waiting.request("/x")[:-2],
            waiting.request("/callback?x=" * 99),
        ):
            connection = socket.create_connection(("127.0.0.1", waiting.port), timeout=10)
            connection.sendall(data)
            reset_at_close(connection)
            connection.close()
        waiting.succeed()
        assert capsys.readouterr().err == ""

    def test_only_this_machine_reaches_it_and_only_while_the_login_waits(self, waiting):
        others = [("::1", waiting.port)]
        if sys.platform == "linux":  # elsewhere these are not addresses of this machine
            others += [("127.0.0.2", waiting.port)]
        for address in others:
            with pytest.raises(OSError) as caught:  # noqa: PT011 - any but a time-out
                socket.create_connection(address, timeout=2)
            assert not isinstance(caught.value, socket.timeout)
        waiting.succeed()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", waiting.port), timeout=2)

    def test_a_port_that_is_listened_at_is_not_shared(self, auth0, tenant, waiting):
        other = client(tenant, MemoryCache(), ports=[waiting.port])
        with pytest.raises(ConfigError):
            other.login(flow="browser", open_browser=False, show=print, timeout=1)
        waiting.succeed()

    def test_the_code_goes_out_once_with_its_verifier_and_address(self, auth0, tenant):
        verifiers = set()
        for _ in range(2):
            login = WaitingLogin(auth0, tenant)
            login.succeed()
            (sent,) = (r.params for r in tenant.requests if r.path == "/oauth/token")
            tenant.requests.clear()
            assert sent["redirect_uri"] == login.redirect_uri
            digest = hashlib.sha256(sent["code_verifier"].encode()).digest()
            assert b64url(digest) == parameters(login.url)["code_challenge"]
            assert re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", sent["code_verifier"])
            verifiers.add(sent["code_verifier"])
        assert len(verifiers) == 2

    def test_the_same_response_again_gets_the_same_result(self, waiting, exchange, tenant):
        answer = waiting.answer()
        first = exchange.begin(answer)
        again = send(waiting.port, answer)
        answers = {
            waiting.get(f"/callback?{query}&state={waiting.state}").status
            for query in ("error=access_denied", "code=c", f"code={waiting.state}")
        }
        assert answers == {410}
        assert waiting.get("/callback?code=c").status == 400
        assert select.select([first, again], [], [], 0)[0] == []  # nobody is told before the end
        exchange.end()
        locations = set()
        for connection in (first, again):  # the end of one is not the end of the other
            answer = receive(connection)
            assert "You are logged in" in waiting.follow(answer).text
            locations.add(answer.headers["Location"])
        assert waiting.result().user["sub"] == "auth0|alice"
        assert tenant.count("/oauth/token") == 1
        assert not any("code" in location for location in locations)

    def test_the_address_of_the_result_can_not_be_guessed(self, auth0, tenant, waiting):
        paths = set()
        for login in (waiting, WaitingLogin(auth0, tenant)):
            answer = receive(send(login.port, login.answer()))
            login.follow(answer)
            login.result()
            path = answer.headers["Location"]
            assert re.fullmatch(r"/[A-Za-z0-9_-]{22,}", path)
            assert path[1:] not in login.url
            paths.add(path)
        assert len(paths) == 2

    @table(
        "more",
        {
            "twice": "&x=1&x=2",
            "40": "".join(f"&a{number}=" for number in range(40)),
            "1000 of one name": "&a" * 1000,
            "not UTF-8": "&x=%FF&%FF=x",
            "a description beside the code": "&error_description=%FF",
        },
    )
    def test_parameters_without_a_meaning_here_are_passed_over(self, waiting, more):
        assert waiting.follow(receive(send(waiting.port, waiting.answer(more)))).status == 200
        assert waiting.result().user["sub"] == "auth0|alice"

    def test_a_description_that_is_not_utf_8_is_shown_as_far_as_it_is(self, waiting):
        query = f"error=access_denied&error_description=not%FFallowed&state={waiting.state}"
        assert "not\ufffdallowed" in waiting.follow(waiting.get(f"/callback?{query}")).text
        with pytest.raises(LoginFailed, match="not\ufffdallowed") as caught:
            waiting.result()
        assert caught.value.error == "access_denied"

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
    def test_the_browser_hears_of_any_end(self, waiting, tenant, monkeypatch, kind):
        def fail(*_):
            raise kind("a secret")

        monkeypatch.setattr(auth0_cli, "_check_response", fail)
        end = tenant.login_as(waiting.url)
        assert (end.status, "You are not logged in" in end.text) == (200, True)
        assert "secret" not in end.text
        assert "?" not in end.url
        with pytest.raises(kind, match="secret"):
            waiting.result()

    def test_a_response_after_the_end_of_the_wait_is_refused(self):
        with auth0_cli._Listener((0,)) as listener:
            assert listener.end_wait({})
            assert listener.accept_response(f"code=c&state={listener.state}") == 410

    def test_a_response_before_the_end_of_the_wait_is_served(self):
        with auth0_cli._Listener((0,)) as listener:
            assert listener.accept_pasted(f"code=c&state={listener.state}")
            assert not listener.end_wait({})

    def test_where_no_thread_can_be_started_the_device_flow_is_named(self, monkeypatch):
        def start(thread):
            raise RuntimeError("can't start new thread")

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(ConfigError, match="can start no thread: use --flow device"):
            client(SimpleNamespace(domain="a.example"), MemoryCache(), ports=port).login(
                flow="browser", open_browser=False, show=print
            )
        socket.create_server(("127.0.0.1", port)).close()

    @table(
        "iss",
        {
            "another": "https://evil.example/",
            "empty": "",
            "without its slash": "{domain}",
            "with one character more": "{domain}/1",
            "in capitals": "HTTP://127.0.0.1:{port}/",
        },
    )
    def test_an_answer_of_another_issuer_stops_the_login(self, waiting, tenant, iss):
        iss = quote(iss.format(domain=tenant.domain, port=tenant.port), "")
        url = f"{waiting.redirect_uri}?code=c&state={waiting.state}&iss={iss}"
        end = fetch(url)
        with pytest.raises(LoginFailed):
            waiting.result()
        assert "not logged in" in end.text
        assert tenant.count("/oauth/token") == 0

    def test_an_answer_of_the_right_issuer_is_taken(self, waiting, tenant):
        tenant.authorization_response_iss = True
        waiting.succeed()

    def test_words_of_an_error_are_shown_as_text(self, waiting, tenant):
        words = f"<script>alert(1)</script><img src=x onerror='alert(1)'>{ESCAPES}"
        answer = {"error": "<b>x</b>", "error_description": words, "state": waiting.state}
        end = fetch(f"{waiting.redirect_uri}?{urlencode(answer)}")
        with pytest.raises(LoginFailed) as caught:
            waiting.result()
        assert caught.value.exit_code == 4
        assert str(caught.value).isprintable()
        assert "alert(1)" in str(caught.value)
        assert not re.search(r"<(script|img|b)\b", end.text)
        assert "&lt;script&gt;" in end.text
        assert all(line.isprintable() for line in end.text.split("\n"))
        assert "?" not in end.url

    def test_no_code_stays_in_the_address_of_a_failed_login(self, waiting, tenant):
        tenant.break_next("/oauth/token", status=403, body={"error": "invalid_grant"})
        end = tenant.login_as(waiting.url)
        with pytest.raises(OAuthError):
            waiting.result()
        assert "?" not in end.url
        assert not [secret for secret in tenant.secrets if secret in end.url + end.text]

    def test_the_end_of_the_time_is_the_end_whatever_is_connected(self, auth0, tenant):
        login = WaitingLogin(auth0, tenant, timeout=0.3)
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                address = ("127.0.0.1", login.port)
                stack.enter_context(socket.create_connection(address, timeout=10))
            with pytest.raises(LoginFailed):
                login.result()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", login.port), timeout=2)

    @pytest.mark.parametrize(
        ("method", "target", "status"),
        [
            ("GET", "/x", 404),
            ("GET", "/callback", 400),
            ("POST", "/callback", 405),
            ("HEAD", "/callback", 405),
        ],
    )
    def test_each_page_has_all_its_headers(self, waiting, method, target, status):
        answer = waiting.get(target, method=method)
        assert answer.status == status
        headers = dict(answer.headers)
        policy = headers.pop("Content-Security-Policy").split("; ")
        assert policy.pop(1).startswith("style-src 'sha256-")
        names = ("default-src", "base-uri", "form-action", "frame-ancestors")
        assert policy == [f"{name} 'none'" for name in names]
        length = int(headers.pop("Content-Length"))
        assert length > 100
        assert len(answer.text.encode()) == (0 if method == "HEAD" else length)
        assert headers == {
            "Content-Type": "text/html; charset=utf-8",
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
            **({"Allow": "GET"} if status == 405 else {}),
        }

    def test_the_page_of_the_end_takes_no_query(self, waiting):
        first = receive(send(waiting.port, waiting.answer()))
        assert waiting.get(f"{first.headers['Location']}?code=c").status == 404
        assert waiting.follow(first).status == 200
        assert waiting.result().user["sub"] == "auth0|alice"

    @pytest.mark.parametrize("name", ["TLS", "a bare newline", "every byte"])
    def test_what_is_not_http_gets_no_page(self, waiting, name):
        connection, received = send(waiting.port, STRAYS[name][1](waiting)), b""
        with connection, contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                received += part
        assert received == b""

    def test_a_port_that_browsers_leave_out_is_left_out(self):
        try:
            listener = auth0_cli._Listener((80,))
        except ConfigError:
            pytest.skip("port 80 is taken, or kept for root")
        with listener:  # another host gets 400
            answer = receive(send(80, b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))
            assert answer.status == 404

    def test_a_silent_connection_is_closed_and_not_told(self, capsys):
        with auth0_cli._Listener((0,)) as listener:
            handler = listener._server.RequestHandlerClass
            assert 0 < handler.timeout <= 10
            handler.timeout = 0.02
            with socket.create_connection(listener._server.server_address, timeout=10) as silent:
                silent.sendall(b"GET /callback?code=secret")
                assert silent.recv(1) == b""
        assert capsys.readouterr().err == ""

    def test_what_a_browser_adds_to_a_pasted_address_is_cut_off(self):
        with auth0_cli._Listener((0,)) as listener:
            address = f"{listener.redirect_uri}?code=c&state={listener.state}"
            assert not listener.accept_pasted(f"{address}1#_=_")
            assert listener.accept_pasted(f" <{address}#_=_>\n")
            for around in ("<>", "()", "[]", "''", '""', "\t "):
                assert listener.accept_pasted(address.join(around))
            assert not listener.accept_pasted(address.replace("code=c", "code=d"))

    def test_a_pasted_address_leaves_no_browser_to_wait_for(self, monkeypatch):
        def acquire(*args, **options):
            shown.append(true(*args, **options))

        shown, true = [], threading.Semaphore.acquire
        with auth0_cli._Listener((0,)) as listener:
            listener.accept_pasted(f"{listener.redirect_uri}?code=c&state={listener.state}")
            monkeypatch.setattr(threading.Semaphore, "acquire", acquire)
        assert shown == [True]

    @pytest.mark.parametrize("end", ["the end of the time", "c for a code"])
    def test_an_answer_that_comes_just_before_the_end_of_the_wait_counts(self, monkeypatch, end):
        def arrive():
            listener.accept_pasted(f"?code=c&state={listener.state}")

        class Prompt(auth0_cli._Prompt):
            def poll_line(self, deadline):
                if end == "c for a code":
                    arrive()
                    return "c"
                return None

        def monotonic():
            clock.append(1)
            if end == "the end of the time" and len(clock) > 1:
                arrive()
                return 1e9
            return 0

        clock = []
        with auth0_cli._Listener((0,)) as listener, monkeypatch.context() as patch:
            patch.setattr(auth0_cli, "time", SimpleNamespace(monotonic=monotonic))
            prompt = Prompt(show=lambda _: None)
            response = auth0_cli._wait_for_response(listener, 300, prompt, can_use_code=True)
            patch.undo()
        assert response == {"code": "c", "state": listener.state}

    def test_the_port_of_a_login_is_not_always_the_same(self):
        with contextlib.ExitStack() as stack:
            listeners = [stack.enter_context(auth0_cli._Listener((0,))) for _ in range(4)]
            ports = [listener._server.server_address[1] for listener in listeners]
        seen = set()
        for _ in range(50):
            with auth0_cli._Listener(ports) as listener:
                seen.add(listener.host)
        assert len(seen) > 1


@contextlib.contextmanager
def another_account(login):
    """Yield what makes a connection of another account of this machine; it gets bytes to send."""

    def connect(data=b"", family=socket.AF_INET):
        connection = socket.socket(family)
        if connect.uid == 0:
            os.fchown(connection.fileno(), 4002, -1)  # which is what the system lists
        connection.settimeout(10)
        host = "127.0.0.1" if family == socket.AF_INET else "::ffff:127.0.0.1"
        connection.connect((host, login.port))
        connection.sendall(data)
        return connection

    connect.uid = os.getuid()
    with pytest.MonkeyPatch.context() as patch:
        if connect.uid:  # root's connections are served to anybody, others can't be given away
            patch.setattr(os, "getuid", lambda: 4002)
        yield connect


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists whose a connection is")
class TestOtherAccounts(Shared):
    @pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
    def test_they_can_not_answer_a_login(self, waiting, family):
        with another_account(waiting) as connect:
            answer = receive(connect(waiting.answer(), family))
        assert (answer.status, waiting.state in answer.text) == (403, False)
        waiting.succeed()

    @pytest.mark.parametrize("ending", ["close", "reset"])
    def test_they_gain_nothing_by_leaving_before_the_answer(self, waiting, ending):
        with another_account(waiting) as connect:
            for _ in range(20):
                error = f"/callback?error=access_denied&state={waiting.state}"
                with connect(waiting.request(error)) as connection:
                    if ending == "reset":
                        reset_at_close(connection)
            assert receive(connect(waiting.request("/x"))).status == 403
        waiting.succeed()

    def test_they_can_not_fetch_the_result(self, waiting):
        first = receive(send(waiting.port, waiting.answer()))
        with another_account(waiting) as connect:
            answer = receive(connect(waiting.request(first.headers["Location"])))
        assert answer.status == 403
        assert waiting.follow(first).status == 200

    def test_they_can_not_crowd_out_the_browser(self, waiting):
        with contextlib.ExitStack() as stack:
            with another_account(waiting) as connect:
                connections = [stack.enter_context(connect()) for _ in range(80)]
                with contextlib.suppress(ConnectionError):
                    assert connections[-1].recv(1) == b""
            waiting.succeed()

    def test_who_called_sudo_can(self, waiting, monkeypatch):
        with another_account(waiting) as connect:
            monkeypatch.setenv("SUDO_UID", str(connect.uid or 4002))
            assert receive(connect(waiting.request("/x"))).status == 404
        waiting.succeed()

    @pytest.mark.skipif(POSIX and os.geteuid() != 0, reason="only root connects as root")
    def test_root_can(self, waiting, monkeypatch):
        monkeypatch.setattr(os, "getuid", lambda: 4002)
        assert waiting.get("/x").status == 404
        waiting.succeed()

    @table("tables", {"no tables": None, "tables without it": "  sl  local_address rem_address\n"})
    def test_who_is_not_listed_is_served(self, waiting, monkeypatch, tables):
        def without(path, *args, **options):
            if not str(path).startswith("/proc/net/"):
                return open(path, *args, **options)
            if tables is None:
                raise FileNotFoundError(path)
            return io.StringIO(tables)

        monkeypatch.setattr(auth0_cli, "open", without, raising=False)
        with another_account(waiting) as connect:
            connection = connect(waiting.request("/x"))
            assert receive(connection).status == 404
        waiting.succeed()

    def test_who_is_not_listed_any_more_is_not_served(self, waiting, monkeypatch):
        monkeypatch.setattr(
            auth0_cli, "open", lambda *_, **__: io.StringIO("  sl\n"), raising=False
        )
        # Each has sent all that it will, most of them before they are looked up.
        assert any(waiting.get("/x").status == 403 for _ in range(1000))
        monkeypatch.undo()
        waiting.succeed()

    def test_another_system_lists_nobody(self, waiting, monkeypatch):
        other = TestOtherPlatforms.Module(sys, platform="darwin")
        with another_account(waiting) as connect, monkeypatch.context() as patch:
            patch.setattr(auth0_cli, "sys", other)
            assert receive(connect(waiting.request("/x"))).status == 404
        waiting.succeed()


# ---- Properties: ID token ------------------------------------------------------------------------


HEADER = b'{"alg":"RS256","kid":"practice-1"}'


def jws(payload, header=HEADER, sign=KEYS[0].sign):
    """Sign bytes."""
    message = f"{b64url(header)}.{b64url(payload)}"
    return f"{message}.{b64url(sign(message.encode()))}"


def encoded(claims):
    return json.dumps(claims).encode()


def refused(auth0, tenant, **options):
    """Return which check the ID token of a login fails; nothing of that login is kept."""
    with pytest.raises(InvalidToken) as caught:
        log_in(auth0, tenant, **options)
    assert caught.value.exit_code == 4
    assert auth0.session() is None
    assert not [secret for secret in tenant.secrets if secret in str(caught.value)]
    assert re.search(": (log in|correct|check|choose|update) ", str(caught.value)), "the next step"
    return caught.value.claim


def more(text):
    return text + "1"


def in_seconds(seconds):
    return lambda _: int(time.time()) + seconds


BAD_CLAIMS = {
    f"{name} {what}": (name, value)
    for name, values in {
        "iss": {
            "missing": MISSING,
            "null": None,
            "number": 1,
            "empty": "",
            "with one character more": more,
            "without its slash": lambda iss: iss[:-1],
            "list": lambda iss: [iss],
            "of another tenant": "https://evil.example/",
        },
        "sub": {
            "missing": MISSING,
            "null": None,
            "number": 1,
            "empty": "",
            "list": lambda sub: [sub],
            "too long": "x" * 256,
        },
        "aud": {
            "missing": MISSING,
            "null": None,
            "number": 1,
            "empty": "",
            "with one character more": more,
            "without its last character": lambda aud: aud[:-1],
            "object": lambda aud: {aud: aud},
            "empty list": [],
            "list of strangers": ["practice-other", "practice-web"],
            "list in a list": lambda aud: [[aud]],
            "list with a number": lambda aud: [aud, 1],
        },
        "azp": {
            "of another client": "practice-other",
            "empty": "",
            "number": 1,
            "list": ["practice-native"],
        },
        "exp": {
            "missing": MISSING,
            "null": None,
            "string": str,
            "boolean": True,
            "list": lambda exp: [exp],
            "negative": -1,
            "passed": in_seconds(-90),
        },
        "iat": {
            "missing": MISSING,
            "null": None,
            "string": str,
            "boolean": True,
            "from the future": in_seconds(90),
        },
        "nbf": {"null": None, "string": "0", "boolean": False, "not reached": in_seconds(90)},
        "nonce": {
            "missing": MISSING,
            "null": None,
            "empty": "",
            "number": 1,
            "of another login": "x" * 43,
            "with one character more": more,
            "without its last character": lambda nonce: nonce[:-1],
            "list": lambda nonce: [nonce],
        },
        "at_hash": {"of another token": "A" * 22, "null": None, "empty": "", "number": 1},
    }.items()
    for what, value in values.items()
}
GOOD_CLAIMS = {
    "audience as a list": ("aud", lambda aud: [aud]),
    "expired within the leeway": ("exp", in_seconds(-30)),
    "issued ahead within the leeway": ("iat", in_seconds(30)),
    "times as floats": ("iat", lambda iat: iat + 0.5),
    "not before a time within the leeway": ("nbf", in_seconds(30)),
    "authorized party": ("azp", "practice-native"),
    "claims that nobody knows": ("https://example.test/x", {"a": [1, None, "x"]}),
    "a long subject": ("sub", "x" * 255),
}


def standard_alphabet(token):
    return token.replace("-", "+").replace("_", "/")


def last_character_changed(token):
    """Return another spelling of the same bytes, which only a strict decoder refuses."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + letters[letters.index(token[-1]) + 1]


def with_signature(change):
    """Return a forgery that signs truly, then changes the signature's bytes."""
    return lambda claims: jws(encoded(claims), sign=lambda message: change(KEYS[0].sign(message)))


def with_bit_flipped(signature):
    return signature[:-1] + bytes([signature[-1] ^ 1])


def plus_modulus(claims):
    """Return a signature that is the true one modulo n, but not less than n."""
    for number in range(1000):
        message = f"{b64url(HEADER)}.{b64url(encoded({**claims, 'jti': number}))}"
        s = int.from_bytes(KEYS[0].sign(message.encode()), "big") + KEYS[0].n
        if s < 1 << 2048:
            return f"{message}.{b64url(s.to_bytes(256, 'big'))}"
    raise AssertionError("no signature is small enough")


def other_payload(claims):
    header, _, signature = jwt(claims).split(".")
    return f"{header}.{b64url(encoded({**claims, 'email': 'mallory@example.test'}))}.{signature}"


def other_header(claims):
    _, payload, signature = jwt(claims).split(".")
    return f"{b64url(HEADER + b' ')}.{payload}.{signature}"


FORGERIES = {
    # alg
    **{
        f"alg {alg}, no signature": (
            "alg",
            lambda claims, alg=alg: jws(encoded(claims), encoded({"alg": alg}), lambda _: b""),
        )
        for alg in ("none", "None", "NONE", "nOnE")
    },
    **{
        f"alg {alg!r}": ("alg", lambda claims, alg=alg: jwt(claims, {"alg": alg}))
        for alg in ("none", "rs256", "RS256 ", "RS384", "PS256", "ES256", "EdDSA", "", 256, True)
    },
    "alg missing": ("alg", lambda claims: jwt(claims, {"alg": None})),
    "alg in a list": ("alg", lambda claims: jwt(claims, {"alg": ["RS256"]})),
    "HS256 with the modulus": (
        "alg",
        lambda claims: jwt(
            claims, {"alg": "HS256", "kid": KEY["kid"]}, KEYS[0].n.to_bytes(256, "big")
        ),
    ),
    "HS256 with the published key": (
        "alg",
        lambda claims: jwt(claims, {"alg": "HS256", "kid": KEY["kid"]}, encoded(KEY)),
    ),
    "HMAC that calls itself RS256": (
        "signature",
        lambda claims: jwt(claims, {"kid": KEY["kid"]}, encoded(KEY)),
    ),
    # header
    "crit": ("crit", lambda claims: jwt(claims, {"crit": ["exp"]})),
    "crit that is empty": ("crit", lambda claims: jwt(claims, {"crit": []})),
    "unencoded payload": ("crit", lambda claims: jwt(claims, {"b64": False, "crit": ["b64"]})),
    "alg twice": (
        "form",
        lambda claims: jws(encoded(claims), b'{"alg":"none","alg":"RS256","kid":"practice-1"}'),
    ),
    "header as a list": ("form", lambda claims: jws(encoded(claims), b"[]")),
    "header that is no JSON": ("form", lambda claims: jws(encoded(claims), b"RS256")),
    "header in UTF-16": (
        "form",
        lambda claims: jws(encoded(claims), HEADER.decode().encode("utf-16")),
    ),
    # keys that the token brings along
    "key in the header": (
        "kid",
        lambda claims: jwt(claims, {"kid": "mine", "jwk": KEYS[2].jwk()}, KEYS[2]),
    ),
    "key in the header, known kid": (
        "signature",
        lambda claims: jwt(claims, {"kid": KEY["kid"], "jwk": KEYS[2].jwk()}, KEYS[2]),
    ),
    "address of a key in the header": (
        "signature",
        lambda claims: jwt(
            claims,
            {"kid": KEY["kid"], "jku": "https://evil.example/", "x5u": "https://evil.example/"},
            KEYS[2],
        ),
    ),
    # kid
    "kid unknown": ("kid", lambda claims: jwt(claims, {}, KEYS[2])),
    "kid absent with two keys": ("kid", lambda claims: jwt(claims, {"kid": None})),
    **{
        f"kid {kid!r}": ("kid", lambda claims, kid=kid: jwt(claims, {"kid": kid}))
        for kid in ("", 1, True, ["practice-1"], {"practice-1": 1}, "../practice-1", "practice-11")
    },
    # form
    "no text": ("form", lambda claims: 7),
    "absent": ("form", lambda claims: None),
    "empty": ("form", lambda claims: ""),
    "dots only": ("form", lambda claims: ".."),
    "one part": ("form", lambda claims: jwt(claims).split(".")[1]),
    "two parts": ("form", lambda claims: jwt(claims).rpartition(".")[0]),
    "four parts": ("form", lambda claims: jwt(claims) + "."),
    "five parts (encrypted)": ("form", lambda claims: jwt(claims) + ".AAAA.AAAA"),
    "padding characters": ("form", lambda claims: jwt(claims) + "=="),
    "newline at the end": ("form", lambda claims: jwt(claims) + "\n"),
    "newline amid": ("form", lambda claims: jwt(claims)[:-8] + "\n" + jwt(claims)[-8:]),
    "standard alphabet": ("form", lambda claims: standard_alphabet(jwt(claims))),
    "not canonical": ("form", lambda claims: last_character_changed(jwt(claims))),
    "not ASCII": ("form", lambda claims: jwt(claims) + "\u00e9"),
    # payload, truly signed
    "payload as a list": ("form", lambda claims: jws(encoded([claims]))),
    "payload as a string": ("form", lambda claims: jws(encoded("claims"))),
    "payload empty": ("form", lambda claims: jws(b"")),
    "payload not UTF-8": ("form", lambda claims: jws(encoded(claims)[:-1] + b',"x":"\xff"}')),
    "payload with a BOM": ("form", lambda claims: jws(b"\xef\xbb\xbf" + encoded(claims))),
    "payload with text after it": ("form", lambda claims: jws(encoded(claims) + b"{}")),
    "claim twice": ("form", lambda claims: jws(encoded(claims)[:-1] + b',"sub":"auth0|mallory"}')),
    "name twice deep inside": (
        "form",
        lambda claims: jws(encoded(claims)[:-1] + b',"x":[{"a":1,"a":2}]}'),
    ),
    "NaN": ("form", lambda claims: jws(encoded({**claims, "exp": float("nan")}))),
    "Infinity": ("form", lambda claims: jws(encoded({**claims, "exp": float("inf")}))),
    "deep nesting": ("form", lambda claims: jws(encoded(claims)[:-1] + b',"x":' + b"[" * 50_000)),
    "a float too large": (
        "exp",
        lambda claims: jws(encoded({**claims, "exp": 0}).replace(b'"exp": 0', b'"exp": 9e999')),
    ),
    # signature
    "payload changed": ("signature", other_payload),
    "header changed": ("signature", other_header),
    "signature of another key": (
        "signature",
        lambda claims: jwt(claims, {"kid": KEY["kid"]}, KEYS[2]),
    ),
    "signature of the next key": (
        "signature",
        lambda claims: jwt(claims, {"kid": KEY["kid"]}, KEYS[1]),
    ),
    "signature of other bytes": (
        "signature",
        lambda claims: jws(encoded(claims), sign=lambda _: KEYS[0].sign(b"other")),
    ),
    "bit flipped": ("signature", with_signature(with_bit_flipped)),
    "signature empty": ("signature", with_signature(lambda _: b"")),
    "signature of zeros": ("signature", with_signature(lambda _: bytes(256))),
    "signature is one": ("signature", with_signature(lambda _: bytes(255) + b"\1")),
    "signature is n - 1": (
        "signature",
        with_signature(lambda _: (KEYS[0].n - 1).to_bytes(256, "big")),
    ),
    "signature cut": ("signature", with_signature(lambda signature: signature[:-1])),
    "byte after the signature": ("signature", with_signature(lambda signature: signature + b"\0")),
    "byte before the signature": ("signature", with_signature(lambda signature: b"\0" + signature)),
    "signature not less than n": ("signature", plus_modulus),
}
INFO = SHA256_PREFIX
BLOCKS = {  # id -> function from the digest to the block that a lenient verifier takes
    "Bleichenbacher 2006": lambda d: b"\0\1" + b"\xff" * 8 + b"\0" + INFO + d + bytes(194),
    "padding cut by one byte": lambda d: b"\0\1" + b"\xff" * 201 + b"\0" + INFO + d + b"\0",
    "no padding": lambda d: b"\0\1\0" + INFO + d + b"\xaa" * 202,
    "padding of zeros": lambda d: b"\0\1" + bytes(202) + b"\0" + INFO + d,
    "one byte of padding changed": lambda d: b"\0\1\xff\xfe" + b"\xff" * 200 + b"\0" + INFO + d,
    "no end of the padding": lambda d: b"\0\1" + b"\xff" * 203 + INFO + d,
    "block type 0": lambda d: b"\0\0" + b"\xff" * 202 + b"\0" + INFO + d,
    "block type 2": lambda d: b"\0\2" + b"\xff" * 202 + b"\0" + INFO + d,
    "first byte 1": lambda d: b"\1\1" + b"\xff" * 202 + b"\0" + INFO + d,
    "digest without its name": lambda d: b"\0\1" + b"\xff" * 221 + b"\0" + d,
    "missing NULL": lambda d: (
        b"\0\1"
        + b"\xff" * 204
        + b"\0"
        + bytes.fromhex("302f300b0609608648016503040201")
        + b"\4 "
        + d
    ),
    "long form of a length": lambda d: b"\0\1" + b"\xff" * 201 + b"\0" + b"\x30\x81" + INFO[1:] + d,
    "parameters with content": lambda d: (
        b"\0\1"
        + b"\xff" * 198
        + b"\0"
        + bytes.fromhex("3035301106096086480165030402010504deadbeef0420")
        + d
    ),
    "name of SHA-512": lambda d: (
        b"\0\1" + b"\xff" * 202 + b"\0" + INFO[:14] + b"\3" + INFO[15:] + d
    ),
    "half a digest": lambda d: b"\0\1" + b"\xff" * 218 + b"\0" + INFO + d[:16],
    "bytes after the digest inside": lambda d: (
        b"\0\1" + b"\xff" * 200 + b"\0\x30\x33" + INFO[2:] + d + b"\0\0"
    ),
}


def with_block(build):
    """Return the signing of a block of one's own with the true key."""

    def sign(message):
        block = build(hashlib.sha256(message).digest())
        assert len(block) == 256
        return KEYS[0].sign_block(block)

    return sign


def true_block(digest):
    return b"\0\1" + b"\xff" * 202 + b"\0" + INFO + digest


def block_itself(message):
    """Sign as nobody needs a key for: with the exponent 1."""
    return true_block(hashlib.sha256(message).digest())


def cube_root(message):
    """Forge with the exponent 3: the garbage after the digest makes the block almost a cube."""
    digest = hashlib.sha256(message).digest()
    wanted = int.from_bytes(b"\0\1" + b"\xff" * 8 + b"\0" + INFO + digest + b"\xff" * 194, "big")
    low, high = 0, 1 << 700
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= wanted else (low, middle - 1)
    return low.to_bytes(256, "big")


ODD_KEYS = [
    *(7, None, "key", [], {}, {"kty": "oct", "kid": KEY["kid"], "k": KEY["n"]}),
    {"kty": "EC", "kid": KEY["kid"], "crv": "P-256", "x": "AA", "y": "AA"},
    *(
        {**KEY, "kid": 7},
        {**KEY, "kid": None},
        {**KEY, "n": 5},
        {**KEY, "n": "!"},
        {**KEY, "e": ""},
    ),
]
WITHOUT_KID = overridden(KEY, {"kid": None})
OTHER_KEYS = [{**KEYS[1].jwk(), "kid": f"other-{number}"} for number in range(32)]
KEY_SETS = {  # id -> the keys, the header's changes, the way to sign, the check that fails
    "odd keys beside": ([*ODD_KEYS, KEY], {}, None, None),
    "neither use nor alg": ([overridden(KEY, {"use": None, "alg": None})], {}, None, None),
    "one kid, two keys": ([{**KEYS[1].jwk(), "kid": KEY["kid"]}, KEY], {}, None, None),
    "no kid, one key": ([KEY], {"kid": None}, None, None),
    "no kid anywhere": ([WITHOUT_KID], {"kid": None}, None, None),
    "no kid, one key among odd ones": ([*ODD_KEYS, KEY], {"kid": None}, None, None),
    "a kid of 1024 characters": ([{**KEY, "kid": "k" * 1024}], {"kid": "k" * 1024}, None, None),
    "a kid of 1025 characters": ([{**KEY, "kid": "k" * 1025}], {"kid": "k" * 1025}, None, "kid"),
    "the last of 32 keys": ([*OTHER_KEYS[:31], KEY], {}, None, None),
    "the last of 33 keys": ([*OTHER_KEYS[:32], KEY], {}, None, "kid"),
    "no kid, two keys": ([KEY, KEYS[1].jwk()], {"kid": None}, None, "kid"),
    "kid, keys without": ([WITHOUT_KID], {}, None, "kid"),
    "empty set": ([], {}, None, "kid"),
    "odd keys only": (ODD_KEYS, {}, None, "kid"),
    "use enc": ([{**KEY, "use": "enc"}], {}, None, "kid"),
    "use in a list": ([{**KEY, "use": ["sig"]}], {}, None, "kid"),
    "alg RS512": ([{**KEY, "alg": "RS512"}], {}, None, "kid"),
    "alg HS256": ([{**KEY, "alg": "HS256"}], {}, None, "kid"),
    "kty EC": ([{**KEY, "kty": "EC"}], {}, None, "kid"),
    "1024 bits": ([{**KEY, "n": number(math.prod(KEYS[0].primes[:8]))}], {}, None, "kid"),
    "16384 bits": ([{**KEY, "n": number((1 << 16384) - 1)}], {}, None, "kid"),
    "even modulus": ([{**KEY, "n": number(KEYS[0].n + 1)}], {}, None, "kid"),
    "modulus in another alphabet": ([{**KEY, "n": KEY["n"] + "="}], {}, None, "kid"),
    "no modulus": ([overridden(KEY, {"n": None})], {}, None, "kid"),
    "exponent 0": ([{**KEY, "e": "AA"}], {}, None, "kid"),
    "exponent 1, forged": ([{**KEY, "e": number(1)}], {}, block_itself, "kid"),
    "exponent 3, forged": ([{**KEY, "e": number(3)}], {}, cube_root, "kid"),
    "even exponent": ([{**KEY, "e": number(65538)}], {}, None, "kid"),
    "huge exponent": ([{**KEY, "e": number((1 << 2000) + 1)}], {}, None, "kid"),
}


class TestIdToken(Shared):
    @table("name, value", BAD_CLAIMS)
    def test_a_wrong_claim_is_named_and_no_login(self, auth0, tenant, name, value):
        forge(tenant, lambda claims: jwt(changed(claims, name, value)))
        flow = "browser" if name == "nonce" else "password"
        assert refused(auth0, tenant, flow=flow) == name

    @table("name, value", GOOD_CLAIMS)
    def test_what_the_specification_allows_is_accepted(self, auth0, tenant, name, value):
        forge(tenant, lambda claims: jwt(changed(claims, name, value)))
        assert log_in(auth0, tenant).user["name"] == "Alice Liddell"

    @table(
        "azp, accepted",
        {
            "missing": (MISSING, False),
            "a stranger": ("practice-other", False),
            "this client": ("practice-native", True),
        },
    )
    def test_a_list_with_strangers_needs_the_authorized_party(self, auth0, tenant, azp, accepted):
        strangers = ["practice-native", "practice-other"]
        forge(tenant, lambda claims: jwt(changed({**claims, "aud": strangers}, "azp", azp)))
        if accepted:
            log_in(auth0, tenant)
        else:
            assert refused(auth0, tenant) == "azp"

    def test_the_hash_of_the_access_token_is_compared(self, auth0, tenant):
        def change(reply):
            half = hashlib.sha256(reply["access_token"].encode()).digest()[:16]
            claims = {**claims_of(reply["id_token"]), "at_hash": b64url(half)}
            return {**reply, "id_token": tenant.sign(claims)}

        tenant.break_next("/oauth/token", change=change)
        log_in(auth0, tenant)
        auth0.logout()
        tenant.break_next(
            "/oauth/token", change=lambda reply: dict(change(reply), access_token="x")
        )
        assert refused(auth0, tenant) == "at_hash"

    @table(
        "max_age, value, accepted",
        {
            "now": ("0", in_seconds(0), True),
            "within the leeway": ("0", in_seconds(-30), True),
            "as old as allowed": ("3600", in_seconds(-3600), True),
            "too old": ("3600", in_seconds(-3700), False),
            "too old for 0": ("0", in_seconds(-90), False),
            "missing": ("3600", MISSING, False),
            "missing with 0": ("0", MISSING, False),
            "null": ("3600", None, False),
            "string": ("3600", str, False),
            "boolean": ("3600", True, False),
        },
    )
    def test_max_age_needs_a_recent_login(self, tenant, max_age, value, accepted):
        auth0 = client(tenant, MemoryCache(), params={"max_age": max_age})
        forge(tenant, lambda claims: jwt(changed(claims, "auth_time", value)))
        if accepted:
            log_in(auth0, tenant)
        else:
            assert refused(auth0, tenant) == "auth_time"

    @table(
        "organization, name, value, accepted",
        {
            "id": ("org_1", "org_id", "org_1", True),
            "another id": ("org_1", "org_id", "org_2", False),
            "id missing": ("org_1", "org_id", MISSING, False),
            "id null": ("org_1", "org_id", None, False),
            "id in a list": ("org_1", "org_id", ["org_1"], False),
            "id in capitals": ("org_1", "org_id", "ORG_1", False),
            "id with one character more": ("org_1", "org_id", more, False),
            "name": ("acme", "org_name", "acme", True),
            "name asked for in capitals": ("Acme", "org_name", "acme", True),
            "another name": ("acme", "org_name", "evil", False),
            "name missing": ("acme", "org_name", MISSING, False),
            "name null": ("acme", "org_name", None, False),
            "name with one character more": ("acme", "org_name", more, False),
        },
    )
    def test_organization_is_checked(self, tenant, organization, name, value, accepted):
        tenant.org_names = True
        tenant.orgs["org_1"] = organization if name == "org_name" else "acme"
        auth0 = client(tenant, MemoryCache(), organization=organization)
        forge(tenant, lambda claims: jwt(changed(claims, name, value)))
        if accepted:
            assert log_in(auth0, tenant, flow="browser").organization == organization
        else:
            assert refused(auth0, tenant, flow="browser") == name

    @table("check, make", FORGERIES)
    def test_a_forgery_is_no_login(self, auth0, tenant, check, make):
        forge(tenant, make)
        assert refused(auth0, tenant) == check

    @pytest.mark.parametrize("name", ["exp", "https://example.test/x"])
    def test_a_huge_number_stops_nothing(self, auth0, tenant, name):
        digits = b"1" * 20_000
        forge(tenant, lambda claims: jws(encoded({**claims, name: "?"}).replace(b'"?"', digits)))
        if name == "exp" or hasattr(sys, "get_int_max_str_digits"):
            assert refused(auth0, tenant) in ("exp", "form")
        else:
            log_in(auth0, tenant)

    def test_an_access_token_is_no_id_token(self, auth0, tenant):
        tenant.break_next(
            "/oauth/token", change=lambda reply: dict(reply, id_token=reply["access_token"])
        )
        assert refused(auth0, tenant) == "aud"

    @table("build", BLOCKS)
    def test_a_signature_that_a_lenient_verifier_takes_is_no_login(self, auth0, tenant, build):
        forge(tenant, lambda claims: jws(encoded(claims), sign=with_block(build)))
        assert refused(auth0, tenant) == "signature"

    def test_a_block_of_ones_own_is_accepted_if_it_is_the_one(self, auth0, tenant):
        forge(tenant, lambda claims: jws(encoded(claims), sign=with_block(true_block)))
        log_in(auth0, tenant)

    @table(
        "n, message, signature",
        {
            "RFC 7515 A.2": (
                (
                    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPM"
                    "EzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-"
                    "bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3"
                    "qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9g"
                    "b54h4FRWyuXpoQ"
                ),
                (
                    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leG"
                    "FtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
                ),
                (
                    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5Y"
                    "Kt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6x"
                    "BArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6"
                    "BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_I"
                    "oypGlUPQGe77Rw"
                ),
            ),
            "RFC 7520 4.1": (
                (
                    "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VE"
                    "iZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6A"
                    "j-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQ"
                    "bS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQ"
                    "kqgc5gHdrNP5zw"
                ),
                "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9."
                + b64url(
                    "It\u2019s a dangerous business, Frodo, going out your door. You step onto the "
                    "road, and if you don't keep your feet, there\u2019s no knowing where you "
                    "might be swept off to.".encode()
                ),
                (
                    "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx99"
                    "6ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68B"
                    "Nt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjl"
                    "uPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7"
                    "vjbU5y18kDquDg"
                ),
            ),
        },
    )
    def test_published_signatures_verify(self, n, message, signature):
        # The claims of these vectors are nobody's ID token, so no login can get as far as this.
        key, bytes_ = {"n": n, "e": "AQAB"}, base64.urlsafe_b64decode(signature + "==")
        assert auth0_cli._verify_rs256(key, message.encode(), bytes_)
        assert not auth0_cli._verify_rs256(key, message.encode() + b"A", bytes_)

    @table("keys, header, sign, check", KEY_SETS)
    def test_only_a_usable_key_of_the_tenant_counts(self, auth0, tenant, keys, header, sign, check):
        tenant.break_all("/.well-known/jwks.json", body={"keys": keys})
        header = overridden({"alg": "RS256", "kid": KEY["kid"]}, header)
        forge(tenant, lambda claims: jws(encoded(claims), encoded(header), sign or KEYS[0].sign))
        if check is None:
            log_in(auth0, tenant)
        else:
            assert refused(auth0, tenant) == check

    @pytest.mark.parametrize("keys", [None, {}, "x", 7, {"practice-1": KEY}])
    def test_a_key_set_without_a_list_is_no_login(self, auth0, tenant, hurried, keys):
        tenant.break_all("/.well-known/jwks.json", body={"keys": keys})
        with pytest.raises(NetworkError):
            log_in(auth0, tenant)
        assert auth0.session() is None

    @table("fault", {name: NO_OBJECT[name] for name in KEY_FAULTS})
    def test_keys_that_can_not_be_had_are_no_login(self, auth0, tenant, hurried, fault):
        tenant.break_all("/.well-known/jwks.json", **fault)
        with pytest.raises(NetworkError) as caught:
            log_in(auth0, tenant)
        assert caught.value.exit_code == 5
        assert auth0.session() is None

    def test_an_unknown_key_is_looked_for_once(self, auth0, tenant):
        log_in(auth0, tenant)
        for count in (2, 2):
            forge(tenant, lambda claims: jwt(claims, {}, KEYS[2]))
            with pytest.raises(InvalidToken):
                auth0.get_token(force_refresh=True)
            assert tenant.count("/.well-known/jwks.json") == count

    @table(
        "check, make",
        {
            "another user": ("sub", lambda claims: jwt({**claims, "sub": "auth0|mallory"})),
            "no user": ("sub", lambda claims: jwt(changed(claims, "sub", MISSING))),
            "user with one character more": ("sub", lambda c: jwt(changed(c, "sub", more))),
            "another issuer": ("iss", lambda claims: jwt(changed(claims, "iss", more))),
            "another client": ("aud", lambda claims: jwt(changed(claims, "aud", more))),
            "another organization": ("org_id", lambda c: jwt({**c, "org_id": "org_2"})),
            "alg none": FORGERIES["alg none, no signature"],
            "payload changed": FORGERIES["payload changed"],
            "bit flipped": FORGERIES["bit flipped"],
            "five parts (encrypted)": FORGERIES["five parts (encrypted)"],
            "no text": FORGERIES["no text"],
        },
    )
    def test_a_refresh_that_fails_a_check_brings_nothing(self, cli, tenant, call, check, make):
        auth0 = client(tenant, cli.cache, organization="org_1", params={"max_age": "3600"})
        log_in(auth0, tenant, flow="browser")
        before = json.loads(cli.session_file.read_text())
        forge(tenant, make)
        result = call("token", "--force-refresh", code=4, by=auth0)
        assert check in result.err or check in ("form", "alg")
        after = json.loads(cli.session_file.read_text())
        for name in ("user", "tokens", "id_token"):
            assert after[name] == before[name]
        assert call("token", by=auth0).out.strip() == before["tokens"][0]["access_token"]

    def test_a_refresh_token_of_another_user_is_not_kept(self, cli, tenant):
        auth0 = client(tenant, cli.cache)
        log_in(auth0, tenant)
        before = json.loads(cli.session_file.read_text())["refresh_token"]
        forge(tenant, lambda claims: jwt({**claims, "sub": "auth0|mallory"}))
        with pytest.raises(InvalidToken):
            auth0.get_token(force_refresh=True)
        assert json.loads(cli.session_file.read_text())["refresh_token"] == before

    @table(
        "changes",
        {
            "another auth_time": {"auth_time": 1},
            "auth_time of the future": {"auth_time": 1 << 40},
            "no auth_time": {"auth_time": MISSING},
            "expired": {"exp": 1},
            "no expiry": {"exp": MISSING},
            "issued long ago": {"iat": 1},
            "issued in the future": {"iat": in_seconds(9000)},
            "not valid yet": {"nbf": in_seconds(9000)},
            "without nonce": {"nonce": MISSING},
            "a stranger's at_hash": {"at_hash": "x"},
        },
    )
    def test_a_refresh_is_not_refused_for_what_is_the_provider_s_duty(
        self, tenant, cli, call, changes
    ):
        auth0 = client(tenant, cli.cache, params={"max_age": "3600"})
        log_in(auth0, tenant, flow="browser")

        def make(claims):
            for name, value in changes.items():
                claims = changed(claims, name, value)
            return jwt(claims)

        for _ in range(2):
            forge(tenant, make)
            assert call("token", "--force-refresh", by=auth0).out.strip() in tenant.access_tokens
        assert tenant.count("refresh_token") == 2
        assert auth0.session().user["sub"] == "auth0|alice"

    def test_a_refresh_with_the_nonce_of_another_login_brings_nothing(self, auth0, tenant):
        log_in(auth0, tenant, flow="browser")
        forge(tenant, lambda claims: jwt({**claims, "nonce": "of another login"}))
        with pytest.raises(InvalidToken) as caught:
            auth0.get_token(force_refresh=True)
        assert caught.value.claim == "nonce"

    def test_a_login_with_a_key_that_is_not_shown_yet_requests_the_keys_once_more(
        self, auth0, tenant
    ):
        path = "/.well-known/jwks.json"
        tenant.break_next(path, status=200, body={"keys": [KEYS[2].jwk()]})
        assert log_in(auth0, tenant).user["sub"] == "auth0|alice"
        assert tenant.count(path) == 2
        auth0.get_token(force_refresh=True)
        assert tenant.count(path) == 2  # the new ones are kept

    def test_a_login_with_a_key_that_is_never_shown_requests_the_keys_twice(self, auth0, tenant):
        forge(tenant, lambda claims: jwt(claims, {"kid": "unknown"}, KEYS[2]))
        assert refused(auth0, tenant) == "kid"
        assert tenant.count("/.well-known/jwks.json") == 2


# ---- The file itself: practice tenant ------------------------------------------------------------


class TestPracticeTenant:
    @pytest.fixture
    def tokens(self, tenant):
        """Return what a token request is answered with."""

        def ask(user="alice", **params):
            if params.setdefault("grant_type", "password") == "password":
                params.update(username=user, password=tenant.users[user].password)
            params = {"client_id": "practice-native", "audience": API, **params}
            return post(tenant.issuer + "oauth/token", params).json

        return ask

    @pytest.fixture
    def outside(self, tmp_path):
        """Start a copy that has no neighbour and no pytest, as other programs' tests do."""
        copy = shutil.copy(__file__, tmp_path / "stand_in.py")
        command = [sys.executable, "-I", "-S", copy, "tenant", "--json"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, encoding="utf-8", **pipes) as process:
            process.out, process.err = Stream(process.stdout), Stream(process.stderr)
            yield process
            process.kill()

    def test_lets_a_test_in_another_process_play_the_user(self, outside, cli):
        line = outside.out.line()
        ready = json.loads(line)
        domain = ready["env"]["AUTH0_DOMAIN"]
        env = {"AUTH0_DOMAIN": domain, "AUTH0_CLIENT_ID": "practice-native", "AUTH0_AUDIENCE": API}
        machine = {"AUTH0_CLIENT_ID": "practice-machine", "AUTH0_CLIENT_SECRET": MACHINE_SECRET}
        control = f"{domain}/practice"
        assert ready == {"event": "ready", "env": env, "machine": machine, "control": control}
        cli.env.update(env, AUTH0_CALLBACK_PORTS="0")
        polling = cli.start("login", "--flow", "device", "--json")
        answer = post(control + "/approve", {"user_code": polling.event()["user_code"]})
        assert (answer.status, answer.json) == (200, {})
        running = cli.start("login", "--flow", "browser", "--no-browser", "--json")
        answer = post(control + "/login", {"url": running.event()["url"], "user": "bob"})
        assert (answer.status, answer.json) == (200, {"status": 200})
        assert event_of(running.finish())["user"]["sub"] == "auth0|bob"
        assert event_of(polling.finish())["user"]["sub"] == "auth0|alice"
        cli.env.update(machine, AUTH0_CLI_CACHE=str(cli.home / "machine"))
        assert cli.token()
        outside.terminate()
        assert (outside.out.whole(), outside.err.whole()) == (line, "")
        assert outside.wait(20) == 0 or os.name == "nt"

    def test_the_fixture_of_the_readme_runs(self, scripts):
        assert scripts.fixture.returncode == 0, scripts.fixture.stdout
        assert "2 passed" in scripts.fixture.stdout

    def test_a_refusal_at_the_device_can_be_played(self, auth0, tenant, hurried):
        def deny(prompt):
            post(tenant.issuer + "practice/deny", {"user_code": prompt["user_code"]})

        with pytest.raises(LoginFailed) as caught:
            auth0.login(flow="device", show=deny)
        assert caught.value.error == "access_denied"

    def test_expires_access_tokens_for_an_api_and_no_others(self, tenant, tokens):
        def status(token):
            headers = {"Authorization": f"Bearer {token}"}
            request = urllib.request.Request(tenant.issuer + "userinfo", headers=headers)
            try:
                response = direct_opener().open(request)
            except urllib.error.HTTPError as error:
                response = error
            with response:
                return response.status

        before = tokens(scope="openid")["access_token"]
        assert status(before) == 200
        post(tenant.issuer + "practice/expire")
        assert status(before) == 401
        assert status(tokens(scope="openid")["access_token"]) == 200

    @pytest.mark.parametrize(("body", "ended"), [({}, "alice"), ({"user": "bob"}, "bob")])
    def test_ends_the_sessions_of_one_user(self, tenant, tokens, body, ended):
        post(tenant.issuer + "practice/revoke", body)
        refresh = {user: tokens(user, scope="openid offline_access") for user in ("alice", "bob")}
        assert all("error" not in answer for answer in refresh.values())
        post(tenant.issuer + "practice/revoke", body)
        for user, answer in refresh.items():
            token = answer["refresh_token"]
            again = tokens(grant_type="refresh_token", refresh_token=token)
            assert again.get("error") == ("invalid_grant" if user == ended else None)

    def test_signs_with_another_key_after_a_rotation(self, tenant, tokens):
        kids = []
        for _ in range(2):
            head = tokens()["access_token"].split(".")[0]
            kids.append(json.loads(base64.urlsafe_b64decode(head + "=="))["kid"])
            post(tenant.issuer + "practice/rotate-keys")
        assert kids == ["practice-1", "practice-2"]

    def test_fails_as_often_as_it_is_wanted(self, tenant):
        wanted = {"path": "/oauth/token", "status": 429, "n": 2, "retry_after": 7}
        post(tenant.issuer + "practice/fail", wanted)
        seen = [post(tenant.issuer + "oauth/token") for _ in range(3)]
        assert [answer.status for answer in seen] == [429, 429, 400]
        assert [answer.headers["Retry-After"] for answer in seen] == ["7", "7", None]
        assert seen[0].json == {"error": "too_many_requests"}

    def test_lists_what_it_was_asked_without_secrets(self, tenant, tokens):
        assert fetch(tenant.issuer + "practice/requests").text == "[]"
        tokens(scope="openid")
        (request,) = json.loads(fetch(tenant.issuer + "practice/requests").text)
        assert (request["method"], request["path"]) == ("POST", "/oauth/token")
        assert request["status"] == 200
        assert request["parameters"] == {
            "grant_type": "password",
            "client_id": "practice-native",
            "audience": API,
            "scope": "openid",
            "username": "alice",
            "password": "***",
        }

    @table(
        "name, body, status, words",
        {
            "no JSON": ("approve", b"user_code=A", 400, "JSON"),
            "a list": ("approve", b"[]", 400, "object"),
            "nested": ("approve", b"[" * 100_000, 400, "JSON"),
            "nothing": ("approve", b"", 400, "user_code"),
            "another type": ("fail", b'{"path": "/", "n": "2"}', 400, "n has to be"),
            "another number": ("fail", b'{"path": "/", "status": 200}', 400, "status"),
            "a misspelt member": ("expire", b'{"user": "alice"}', 400, "'user'"),
            "an unknown code": ("approve", b'{"user_code": "AAAA"}', 400, "user code"),
            "an unknown user": ("revoke", b'{"user": "carol"}', 400, "'carol'"),
            "another site": ("login", b'{"url": "http://127.0.0.1:1/"}', 400, "http://127"),
            "an unknown path": ("forgive", b"", 404, "/practice/forgive"),
            "another method": ("requests", b"", 405, "GET"),
        },
    )
    def test_control_says_what_is_wrong_with_a_request(self, tenant, name, body, status, words):
        answer = post(f"{tenant.issuer}practice/{name}", body=body)
        assert answer.status == status
        assert words in answer.json["error"]

    @pytest.mark.parametrize(
        "headers", [{"Origin": "http://a.example"}, {"Origin": "null"}, {"Host": "a.example:80"}]
    )
    def test_control_is_not_for_web_pages(self, tenant, headers):
        tenant.approve = tenant.rotate_keys = None  # which would be called
        assert post(tenant.issuer + "practice/rotate-keys", **headers).status == 403

    def test_the_played_browser_stays_on_this_machine(self, tenant):
        callback = "http://192.0.2.1/callback"
        tenant.clients["practice-native"].callbacks.append(callback)
        url = f"{tenant.issuer}authorize?redirect_uri={callback}&client_id=practice-native"
        answer = post(tenant.issuer + "practice/login", {"url": url})
        assert answer.status == 400
        assert "another machine: 192.0.2.1" in answer.json["error"]

    def test_the_played_browser_tells_what_it_could_not_open(self, tenant):
        tenant.any_loopback_port = True
        with socket.socket() as silent:  # bound, so that nobody else listens there
            silent.bind(("127.0.0.1", 0))
            callback = f"http://127.0.0.1:{silent.getsockname()[1]}/callback"
            url = f"{tenant.issuer}authorize?redirect_uri={callback}&client_id=practice-native"
            assert "no page" in post(tenant.issuer + "practice/login", {"url": url}).json["error"]

    @pytest.mark.parametrize(
        "more",
        [
            {"client_secret": "web-secret-~!%:+ &x"},
            {"client_assertion": "a.b.c", "client_assertion_type": JWT_BEARER},
        ],
    )
    @pytest.mark.parametrize("client_id", ["practice-native", "practice-web"])
    def test_a_device_code_is_for_clients_that_send_no_secret(self, tenant, client_id, more):
        url = tenant.issuer + "oauth/device/code"
        refused = post(url, {"client_id": client_id, **more})
        assert (refused.status, refused.json["error"]) == (403, "unauthorized_client")
        assert post(url, {"client_id": client_id}).status == 200

    @table(
        "user, scope, granted",
        {
            "all": (
                "alice",
                "openid profile email read:things",
                "openid profile email read:things",
            ),
            "unknown": ("alice", "openid no:such read:other", "openid"),
            "not permitted": ("alice", "read:reports write:reports", "read:reports"),
            "bob": ("bob", "read:things write:things read:reports", "read:things"),
            "without any": ("bob", None, "openid profile email read:things"),
        },
    )
    def test_a_user_is_granted_what_the_permissions_allow(self, tokens, user, scope, granted):
        wanted = {} if scope is None else {"scope": scope}
        assert tokens(user, **wanted)["scope"] == granted

    def test_a_refresh_narrows_the_grant_and_never_widens_it(self, tenant, tokens):
        grant = "openid offline_access read:things write:things"
        answer = tokens(scope=grant)
        for wanted, granted in (
            (None, grant),
            ("openid read:things", "openid read:things"),
            ("openid read:things read:reports", "openid read:things"),
            (None, grant),
        ):
            answer = tokens(
                grant_type="refresh_token",
                refresh_token=answer["refresh_token"],
                **({"scope": wanted} if wanted else {}),
            )
            assert answer["scope"] == granted
        tenant.users["alice"].permissions.remove("write:things")
        answer = tokens(grant_type="refresh_token", refresh_token=answer["refresh_token"])
        assert answer["scope"] == "openid offline_access read:things"


class TestLive:
    @pytest.fixture
    def live(self, tenant, monkeypatch, capsys):
        """Run `live` on the tenant, whose clock goes on in the pauses, with Alice at hand."""

        def person(devices):
            for device in devices[:2]:
                tenant.approve(device["user_code"])
            tenant.deny(devices[2]["user_code"])
            return True

        def run(environment, person=person):
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            result = SimpleNamespace(code=run_live(person), text=capsys.readouterr().out)
            assert not [secret for secret in tenant.secrets if secret in result.text]
            result.differences = re.findall("^DIFFERS +(.*)", result.text, re.MULTILINE)
            return result

        monkeypatch.setattr(time, "sleep", tenant.advance)
        return run

    def test_finds_no_difference_between_two_practice_tenants(self, live, tenant):
        seen = live(practice_environment(tenant))
        assert (seen.code, seen.differences) == (0, [])
        for point in (
            "poll at once again: 429",
            "refresh: 200",
            "refresh after the revocation: 403",
        ):
            assert f"same     {point}" in seen.text
        assert not any(session.is_alive for session in tenant.sessions)
        seen = live({**practice_environment(tenant), **machine_environment(tenant)})
        assert (seen.code, seen.differences) == (0, [])
        assert "same     machine: 200" in seen.text

    def test_names_each_difference(self, live, tenant):
        tenant.leeway = 60
        tenant.break_all(
            "/oauth/revoke", status=400, body={"error": "\x1b[31m", "odd": MACHINE_SECRET}
        )
        tenant.break_all("/userinfo", status=401, headers={"Retry-After": "7"}, body="Unauthorized")
        tenant.clients["practice-native"].callbacks.append("http://127.0.0.1:1/callback")
        seen = live(practice_environment(tenant))
        assert seen.code == 1
        assert seen.differences == [
            "revocation of an unknown token",
            "authorize, callback mismatch",
            "userinfo",
            "refresh, the token before the last",
            "refresh, the last one after that",
            "revocation",
            "revocation of the other session",
            "refresh after the revocation",
            "userinfo after the revocation",
            "header Retry-After, of 45 responses",
            "header WWW-Authenticate, of 45 responses",
        ]
        assert "this one: 400 application/json error=?[31m {error, odd}" in seen.text

    def test_does_without_a_person(self, scripts):
        done = scripts.live
        assert (done.returncode, done.stderr) == (1, "")
        assert re.findall("^DIFFERS +(.*)", done.stdout, re.MULTILINE) == ["poll at once again"]
        assert "skipped" in done.stdout
        assert scripts.tenant.sessions == []

    @pytest.mark.parametrize(("answer", "is_done"), [("y\n", True), ("\n", False), ("", False)])
    def test_a_person_is_asked_once(self, monkeypatch, capsys, answer, is_done):
        stdin = SimpleNamespace(isatty=lambda: True, readline=iter([answer]).__next__)
        monkeypatch.setattr(sys, "stdin", stdin)
        device = {"user_code": "AB\x1bCD", "verification_uri": "https://a.example/activate"}
        assert ask_person([device] * 3) is is_done
        text = capsys.readouterr().out
        assert text.count("https://a.example/activate  code AB?CD: ") == 3
        assert ("skipped" in text) is not is_done

    @table(
        "changes, words",
        {
            "no domain": ({"AUTH0_DOMAIN": ""}, "AUTH0_DOMAIN"),
            "no client": ({"AUTH0_CLIENT_ID": " "}, "AUTH0_CLIENT_ID"),
            "no TLS": ({"AUTH0_DOMAIN": "http://a.example"}, "AUTH0_DOMAIN"),
            "nobody there": ({"AUTH0_DOMAIN": "http://127.0.0.1:1"}, "does not answer"),
        },
    )
    def test_is_exit_2_where_it_can_not_run(self, tenant, monkeypatch, capsys, changes, words):
        for name, value in {**practice_environment(tenant), **changes}.items():
            monkeypatch.setenv(name, value)
        assert run_live() == 2
        assert words in capsys.readouterr().err
        assert tenant.requests == []


# ---- The file itself: copies ---------------------------------------------------------------------


class TestCopies:
    """The file as others use it: under other names, in packages and archives."""

    def test_its_head_tells_its_version_and_its_parts(self):
        text = Demo.program.read_text("utf-8")
        assert f"\n# auth0_cli.py {auth0_cli.__version__}, " in text.partition('"""')[0]
        parts = re.findall(r"^# ---- (\w[^-(]*?) [(-]", text, re.MULTILINE)
        listed = " ".join(auth0_cli.__doc__.split())
        first, rest = listed.partition("reads these: ")[2], listed.partition("to the user: ")[2]
        first, rest = first.partition(".")[0], rest.partition(".")[0]
        assert f"{first}; {rest}".split("; ") == parts
        assert rest.startswith("Prompts; QR code")  # no review has to read on from there

    def test_a_copy_in_a_package_shares_the_session(self, logged_in):
        vendor = logged_in.home / "myapp" / "vendor"
        vendor.mkdir(parents=True)
        shutil.copy(Demo.program, vendor / "login_of_mine.py")

        def run(script):
            return logged_in.python(script).finish().out.strip()

        script = "from myapp.vendor.login_of_mine import get_token; print(get_token())"
        assert run(script) == logged_in.token()
        logged_in.run("logout")
        script = (
            "from myapp.vendor.login_of_mine import get_token, LoginRequired\n"
            "try: get_token()\n"
            "except LoginRequired as problem: print(problem)"
        )
        hint = f"run {Path(sys.executable).name} -m myapp.vendor.login_of_mine login --domain"
        assert hint in run(script)

    @pytest.mark.parametrize("flags", [["-OO"], ["-I"], ["-W", "error"], ["-X", "dev"], ["-B"]])
    def test_python_s_own_flags_change_nothing(self, logged_in, flags):
        folder = str(Demo.program.parent)
        script = f"import sys; sys.path.insert(0, {folder!r}); import auth0_cli; "
        running = logged_in.python(script + "print(auth0_cli.get_token())", flags=flags)
        assert running.finish().out.strip() == logged_in.token()

    def test_a_copy_in_an_archive_and_without_a_file_works(self, logged_in, tmp_path):
        archive = tmp_path / "app.pyz"
        with zipfile.ZipFile(archive, "w") as file:
            file.write(Demo.program, "auth0_cli.py")
            file.writestr("__main__.py", "import auth0_cli\nraise SystemExit(auth0_cli.main())\n")
        command = [sys.executable, str(archive), "token"]
        done = subprocess.run(command, env=logged_in.env, check=True, capture_output=True)
        assert done.stdout.decode().strip() == logged_in.token()
        script = (
            f"source = open({str(Demo.program)!r}).read()\n"
            "names = {'__name__': 'frozen'}\n"
            "exec(source, names)\n"
            "names['main'](['token', '--min-ttl', '1'])"
        )
        assert logged_in.python(script).finish().out.strip() == logged_in.token()

    @pytest.mark.parametrize(
        ("of_python", "argv", "command"),
        [
            ({"frozen": True}, ["./dist/mytool"], "./dist/mytool"),
            ({"frozen": True}, ["/opt/auth0-cli-1"], "/opt/auth0-cli-1"),
            ({}, ["/usr/bin/auth0-cli"], "auth0-cli"),
        ],
    )
    def test_its_advice_names_a_command_that_exists(
        self, call, monkeypatch, of_python, argv, command
    ):
        for name, value in of_python.items():
            monkeypatch.setattr(sys, name, value, raising=False)
        monkeypatch.setattr(sys, "argv", argv)
        assert f": run {command} login --domain " in call("token", code=3).err

    @pytest.mark.parametrize("kind", ["__main__ alone", "beside __main__", "directory"])
    def test_the_advice_of_an_archive_names_the_archive(self, cli, tmp_path, kind):
        archive = tmp_path / "app.pyz"
        with zipfile.ZipFile(archive, "w") as file:
            if kind == "beside __main__":
                file.writestr("__main__.py", "import auth0_cli; exit(auth0_cli.main())")
                file.write(Demo.program, "auth0_cli.py")
            else:
                file.write(Demo.program, "__main__.py")
        if kind == "directory":
            with zipfile.ZipFile(archive) as file:
                file.extractall(tmp_path / "app")
            archive = tmp_path / "app"
        command = [sys.executable, str(archive), "token"]
        done = subprocess.run(command, env=cli.env, capture_output=True, text=True, check=False)
        assert f": run {Path(sys.executable).name} {archive} login --domain " in done.stderr

    @pytest.mark.parametrize("how", ["script", "module", "module of a package"])
    def test_a_user_s_modules_beside_it_are_not_imported(self, cli, tenant, tmp_path, how):
        folder = tmp_path / "scripts"
        package = folder / "package"
        package.mkdir(parents=True)
        for directory in (folder, package):
            shutil.copy(Demo.program, directory)
        for name in (
            *("secrets", "select", "ssl", "hashlib", "json", "argparse", "http", "socket"),
            *("queue", "threading", "email", "base64", "shlex", "subprocess", "webbrowser"),
        ):
            (folder / f"{name}.py").write_text("raise SystemExit('a module of the user')")
        command = {
            "script": ["auth0_cli.py"],
            "module": ["-m", "auth0_cli"],
            "module of a package": ["-m", "package.auth0_cli"],
        }[how]
        arguments = ["login", "--flow", "browser", "--no-browser", "--json"]
        with subprocess.Popen(
            [sys.executable, *command, *arguments],
            cwd=folder,
            env=cli.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            first = process.stdout.readline()
            assert first, process.stderr.read()
            tenant.login_as(json.loads(first)["url"])
            assert "logged_in" in process.stdout.readline()
        assert cli.token() in tenant.access_tokens

    @pytest.mark.parametrize("flags", [[], ["-v"]], ids=str)
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("secrets", "API_KEY = 'hunter2'"),
            pytest.param(
                *("select", "API_KEY = 'hunter2'"),
                marks=not_on_windows("Windows needs select in a thread of the listener only"),
            ),
            ("http", "API_KEY = 'hunter2'"),
            ("argparse", "API_KEY = 'hunter2'"),
            ("hashlib", "print 'hunter2'"),
        ],
    )
    def test_a_module_that_hides_python_s_own_from_a_program_is_named(
        self, cli, tmp_path, name, text, flags
    ):
        (tmp_path / f"{name}.py").write_text(text)
        script = (
            f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(Demo.program.parent)!r}]\n"
            "import auth0_cli; sys.exit(auth0_cli.main())"
        )
        arguments = ["login", "--flow", "browser", "--no-browser", "--timeout", "1", *flags]
        err = cli.python(script, *arguments).finish(1).err
        assert "hunter2" not in err
        said = f"auth0_cli: {tmp_path / name}.py hides a module of Python: rename that file\n"
        _, begin, places = err.rpartition(said)
        assert begin
        assert bool(re.fullmatch(r"(  .+:\d+ \(.+\)\n)+", places)) is bool(flags)
        assert ("auth0_cli.py:" in places) is bool(flags)

    def test_two_copies_of_different_versions_leave_each_other_alone(self, logged_in, tmp_path):
        newer = tmp_path / "newer.py"
        source = Demo.program.read_text("utf-8")
        assert "SESSION_VERSION = 1\n" in source
        newer.write_text(source.replace("SESSION_VERSION = 1\n", "SESSION_VERSION = 2\n"), "utf-8")
        script = (
            f"import sys; sys.path[:0] = [{str(Demo.program.parent)!r}, {str(tmp_path)!r}]\n"
            "import auth0_cli, newer\n"
            "old, new = auth0_cli.Auth0(), newer.Auth0()\n"
            "assert old.session()\n"
            "print(old.get_token())"
        )
        assert logged_in.python(script).finish().out.strip() == logged_in.token()
        logged_in.edit(lambda record: record.update(version=2))
        before = logged_in.session_file.read_bytes()
        assert "newer version" in logged_in.run("token", exit=1).err
        assert logged_in.session_file.read_bytes() == before

    def test_a_program_mounts_the_commands_in_its_own_argparse(self, auth0, tenant, capsys):
        log_in(auth0, tenant)
        parser = argparse.ArgumentParser(prog="mytool")
        groups = parser.add_subparsers()
        auth = groups.add_parser("auth").add_subparsers()
        auth0_cli.add_commands(auth, prog="mytool auth", defaults=auth0)
        args = parser.parse_args(["auth", "token"])
        assert args.run(args) == 0
        assert capsys.readouterr().out.strip() in tenant.access_tokens
        auth0.logout()
        assert args.run(args) == 3
        said = capsys.readouterr().err
        assert said.startswith("mytool: ")
        assert "run mytool auth login" in said
        with pytest.raises(SystemExit):
            parser.parse_args(["auth", "login", "-h"])
        assert "  mytool auth login\n" in capsys.readouterr().out

    @pytest.mark.parametrize("command", ["", *auth0_cli._COMMANDS])
    def test_a_mounted_help_shows_nothing_that_the_program_has_set(self, capsys, command):
        settings = {"client_secret": "s3cret-s3cret", "ports": 9000, "params": {"prompt": "login"}}
        auth0 = Auth0("acme.eu.auth0.com", "ID", audience="https://a.example/", **settings)
        arguments = [*command.split(), "-h"]
        assert auth0_cli.main(arguments, prog="mytool auth", defaults=auth0) == 0
        text = capsys.readouterr().out
        options = set(re.findall("--([a-z-]+)", text))
        assert not options & {"domain", "client-id", "client-secret-file", "audience", "port"}
        assert "Allowed Callback" not in text
        assert "acme" not in text
        assert "s3cret" not in text
        if command:
            assert {"profile", "cache"} <= options
            assert f"\n  mytool auth {command}" in text
        if command in ("login", "token"):
            assert {"param", "scope"} <= options

    def test_a_flag_of_a_setting_that_the_program_has_made_is_no_option_of_the_command(
        self, auth0, capsys
    ):
        token = ["token", "--domain", "other.test"]
        assert auth0_cli.main(token, prog="mytool auth", defaults=auth0) == 2
        said = "mytool: token does not take --domain: see mytool auth token -h\n"
        assert capsys.readouterr().err == said

    @pytest.mark.parametrize("prog", ["mytool auth", None])
    def test_a_mistake_points_to_the_help_of_the_mounted_command(self, auth0, capsys, prog):
        name = prog or "python -m auth0_cli"
        for arguments, words in {
            "logout --port 1": f"see {name} logout -h\n",
            "login --timeout x": f"see {name} login -h\n",
            "x": f"see {name} -h\n",
            "--json": f"as in {name} login --json\n",
        }.items():
            assert auth0_cli.main(arguments.split(), prog=prog, defaults=auth0) == 2
            err = capsys.readouterr().err
            assert err.startswith("mytool: " if prog else "auth0_cli: ")
            assert err.replace(os.path.basename(sys.executable), "python").endswith(words)

    def test_a_mounted_command_gives_no_advice_for_the_dashboard(self, auth0, tenant, capsys):
        tenant.clients["practice-native"].grants -= {"device_code", "authorization_code"}
        tenant.clients["practice-native"].callbacks.clear()
        login = ["login", "--flow", "device"]
        assert auth0_cli.main(login, prog="mytool auth", defaults=auth0) == 4
        said = capsys.readouterr().err
        assert re.fullmatch(r"mytool: .+\): ask the developers of mytool\n", said)
        assert auth0_cli.main([*login, "--json"], prog="mytool auth", defaults=auth0) == 4
        event = json.loads(capsys.readouterr().out)
        assert f"mytool: {event['message']}\n" == said
        assert event["hint"] == "ask the developers of mytool"
        assert auth0_cli.main(["doctor", "--json"], prog="mytool auth", defaults=auth0) == 0
        found = json.loads(capsys.readouterr().out)
        hints = {one["check"]: one["hint"] for one in found}
        for check in ("browser_flow", "device_flow", "callbacks"):
            assert hints[check] == "ask the developers of mytool"
        assert "Dashboard" not in str(found)

    def test_a_mounted_login_shows_no_advice_for_the_dashboard_while_it_waits_or_in_the_browser(
        self, auth0, tenant, watchful, hurried, monkeypatch, capsys
    ):
        login = "login --flow browser --timeout 130".split()
        tenant.clients["practice-native"].grants -= {"authorization_code"}
        with ThreadPoolExecutor() as pool:
            pages = []

            def open_browser(url):
                pages.append(pool.submit(tenant.login_as, url))
                return True

            monkeypatch.setattr(auth0_cli, "_open_browser", open_browser)
            assert auth0_cli.main(login, prog="mytool auth", defaults=auth0) == 4
            page = pages[0].result(10).text
        assert "unauthorized_client" in page
        assert "return to mytool" in page
        ticks = itertools.count(step=40)
        monkeypatch.setattr(hurried, "monotonic", lambda: next(ticks))
        monkeypatch.setattr(auth0_cli, "_open_browser", lambda url: True)
        assert auth0_cli.main(login, prog="mytool auth", defaults=auth0) == 4
        said = capsys.readouterr().err
        assert "No page has come back yet\n" in said
        assert "Dashboard" not in page + said

    @pytest.mark.parametrize("prog", ["mytool auth", None])
    def test_a_mounted_command_changes_nothing_of_the_program_s_and_uses_its_cache(
        self, tenant, capsys, tmp_path, monkeypatch, desk, prog
    ):
        monkeypatch.chdir(tmp_path)
        cache, params = DictCache(), {"ui_locales": "de"}
        auth0 = Auth0(tenant.domain, "practice-native", audience=API, cache=cache, params=params)
        before = {name: copy.copy(value) for name, value in vars(auth0).items()}
        for command in (
            *("login --param prompt=login --scope openid", "token", "token --json", "status"),
            *("doctor", "logout --all", "login --no-wait", "logout"),
        ):
            assert auth0_cli.main(command.split(), prog=prog, defaults=auth0) == 0, command
            assert bool(cache.list()) is not command.startswith("logout")
            assert vars(auth0) == before
            assert params == {"ui_locales": "de"}
        assert list(tmp_path.rglob("*")) == [tmp_path / "home"]

    def test_a_program_s_own_options_are_not_those_of_the_mounted_commands(
        self, auth0, tenant, capsys
    ):
        log_in(auth0, tenant)
        parser = argparse.ArgumentParser(prog="mytool")
        for name in ("domain", "cache", "scope", "command"):
            parser.add_argument(f"--{name}", default=f"the program's {name}")
        parser.add_argument("-v", "--verbose", action="count", default=0)
        auth = parser.add_subparsers().add_parser("auth").add_subparsers()
        auth0_cli.add_commands(auth, prog="mytool auth", defaults=auth0)
        args = parser.parse_args(["-vv", "auth", "token", "--json"])
        assert args.run(args) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["access_token"] in tenant.access_tokens
        assert err == ""
        assert (args.domain, args.verbose) == ("the program's domain", 2)

    @pytest.mark.parametrize("command", ["login --flow password --username alice", "token"])
    def test_an_error_that_nobody_expects_names_its_place_in_a_public_method(
        self, cli, auth0, monkeypatch, capsys, command
    ):
        def mistaken(*_, **__):
            hunter2 = "hunter2"
            raise RuntimeError(hunter2)

        monkeypatch.setattr(sys, "stdin", io.StringIO("wonderland-1\n"))
        monkeypatch.setattr(Auth0, "_create_session", mistaken)
        monkeypatch.setattr(auth0_cli._TokenRequest, "obtain", mistaken)
        place = r"\S+test_auth0_cli\.py:\d+ \(mistaken\)"
        said = f"auth0_cli: unexpected RuntimeError at {place}: please report it\n"
        assert auth0_cli.main(command.split(), defaults=auth0) == 1
        assert re.fullmatch(rf"(warning: .+\n)?{said}", capsys.readouterr().err)
        monkeypatch.setattr(sys, "stdin", io.StringIO("wonderland-1\n"))
        assert auth0_cli.main([*command.split(), "-v"], defaults=auth0) == 1
        err = capsys.readouterr().err
        assert "hunter2" not in err
        assert re.search(rf"{said}(  \S+:\d+ \(\w+\)\n)+\Z", err)
        for function in ("_run", command.split()[0].replace("token", "_token_entry")):
            assert re.search(rf"^  \S+auth0_cli\.py:\d+ \({function}\)$", err, re.MULTILINE)
        assert re.search(rf"  {place}\n\Z", err)

    def test_a_parameter_of_the_command_goes_beside_those_of_the_program(self, tenant, capsys):
        program = client(tenant, MemoryCache(), params={"connection": "github", "prompt": "none"})
        command = ["login", "--flow", "browser", "--no-browser", "--json", "--timeout", "0.1"]
        assert auth0_cli.main([*command, "--param", "prompt=login"], defaults=program) == 4
        asked = parameters(json.loads(capsys.readouterr().out.splitlines()[0])["url"])
        assert (asked["connection"], asked["prompt"]) == ("github", "login")

    def test_a_program_s_own_signals_stay_its_own(self, auth0, capsys):
        def own(*_):
            """The host program's."""

        before = signal.signal(signal.SIGTERM, own)
        try:
            assert auth0_cli.main(["status"], defaults=auth0) == 3
            assert signal.getsignal(signal.SIGTERM) is own
            with ThreadPoolExecutor() as pool:
                assert pool.submit(auth0_cli.main, ["status"], defaults=auth0).result(10) == 3
        finally:
            signal.signal(signal.SIGTERM, before)

    @pytest.mark.parametrize("arguments", [["status"], ["token", "--min-ttl", "-1"], ["no-such"]])
    def test_after_a_command_a_signal_ends_the_program_as_before_it(
        self, auth0, installed, capsys, arguments
    ):
        numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
        for number in filter(None, numbers):
            installed(number, signal.SIG_DFL)
        assert auth0_cli.main(arguments, defaults=auth0) in (2, 3)
        for number in filter(None, numbers):
            assert signal.getsignal(number) == signal.SIG_DFL

    def test_the_head_of_the_tests_lists_their_parts(self):
        text = Path(__file__).read_text("utf-8")
        parts = re.findall(r"^# ---- (.+?): (.+?) -+$", text, re.MULTILINE)
        groups = itertools.groupby(parts, key=lambda part: part[0])
        contents = " ".join(f"{name}: {'; '.join(b for _, b in of)}." for name, of in groups)
        assert " ".join(text.partition("Contents.")[2].partition('"""')[0].split()) == contents


# ---- The file itself: speed ----------------------------------------------------------------------


class TestSpeed:
    """What costs time, counted: a stopwatch would blame the machine."""

    def loaded_by(self, cli, code):
        """Return the modules that a bare interpreter has not, after the code."""
        preamble = "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1])"
        end = "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
        script = f"{preamble}\n{code}\n{end}"
        running = cli.python(script, str(Demo.program.parent), flags=["-B", "-I"])
        return set(running.finish().err.split())

    def test_an_import_loads_nothing_else(self, cli):
        assert self.loaded_by(cli, "import auth0_cli") <= {"__future__", "auth0_cli"}

    @pytest.mark.parametrize("settings", ["given", "of the one session"])
    def test_a_warm_token_loads_nothing_but_a_scanner(self, logged_in, settings):
        if settings != "given":
            for name in ("AUTH0_DOMAIN", "AUTH0_CLIENT_ID"):
                del logged_in.env[name]
        loaded = self.loaded_by(logged_in, "import auth0_cli; auth0_cli.main(['token'])")
        assert loaded <= {"__future__", "auth0_cli", "_json"}

    @pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the system may set one")
    def test_where_no_proxy_is_set_none_is_looked_for(self, cli):
        code = "import auth0_cli; assert not auth0_cli._find_proxy('a.example')"
        assert "urllib.request" not in self.loaded_by(cli, code)

    def test_a_renewal_loads_nothing_of_a_login_and_of_help(self, logged_in):
        logged_in.expire()
        loaded = self.loaded_by(logged_in, "import auth0_cli; auth0_cli.main(['token'])")
        assert "http.client" in loaded
        assert not loaded & {"argparse", "difflib", "http.server", "secrets", "webbrowser"}
        loaded = self.loaded_by(logged_in, "import auth0_cli; auth0_cli.main(['token', '--json'])")
        assert "argparse" in loaded
        assert "shutil" not in loaded

    def test_a_warm_token_does_not_wait_for_the_interpreter_to_clean_up(self, logged_in):
        command = [sys.executable, "-B", "-I", "-S", "-v", str(Demo.program)]
        ends = {}
        for word in ("token", "status"):
            done = subprocess.run(
                [*command, word], env=logged_in.env, check=True, capture_output=True, text=True
            )
            assert done.stdout
            ends[word] = "# cleanup" in done.stderr
        assert ends == {"token": False, "status": True}

    @pytest.mark.parametrize("loaded", ["atexit", "re", "threading"])
    def test_a_warm_token_leaves_the_end_to_whoever_may_want_to_see_it(self, logged_in, loaded):
        code = (
            f"import sys, {loaded}\n"
            "class End:\n    def __del__(self): print('the end')\n"
            "end = End()\n"
            "sys.argv = [sys.argv[1], 'token']\n"
            "source = compile(open(sys.argv[0], 'rb').read(), sys.argv[0], 'exec')\n"
            "exec(source, {'__name__': '__main__'})"
        )
        running = logged_in.python(code, str(Demo.program), flags=["-B", "-I", "-S"])
        token, end = running.finish().out.splitlines()
        assert (auth0_cli._is_token(token), end) == (True, "the end")

    def test_no_login_and_no_renewal_asks_more_than_it_must(self, cli, tenant):
        cli.login()
        ours = ["/oauth/token", "/.well-known/jwks.json"]
        paths = [request.path for request in tenant.requests]
        assert [path for path in paths if path not in ("/authorize", "/u/login")] == ours
        cli.expire()
        before = len(tenant.requests)
        cli.token()
        assert [request.path for request in tenant.requests[before:]] == ["/oauth/token"]
        machine = tenant.clients["practice-machine"]
        cli.env.update(AUTH0_CLIENT_ID=machine.client_id, AUTH0_CLIENT_SECRET=machine.client_secret)
        before = len(tenant.requests)
        cli.token()
        cli.token()
        assert [request.path for request in tenant.requests[before:]] == ["/oauth/token"]


# ---- The file itself: other platforms ------------------------------------------------------------


needs_fcntl = not_on_windows("Windows has not the calls with which macOS is played")


class TestOtherPlatforms:
    """Windows and macOS, their calls replaced where the file makes them."""

    class Module:
        """A module with some of its names changed."""

        def __init__(self, module, **changes):
            self.__dict__.update(changes)
            self._module = module

        def __getattr__(self, name):
            return getattr(self._module, name)

    class Console:
        """A Windows console: `text` is what it shows, `keys` what is typed."""

        encoding = "utf-8"

        def __init__(self):
            self.text, self.keys, self.modes = "", [], []
            self.changed = threading.Condition()

        def write(self, text):
            with self.changed:
                self.text += text
                self.changed.notify_all()

        def until(self, pattern):
            with self.changed:
                return self.changed.wait_for(lambda: re.search(pattern, self.text), 20)

        def flush(self):
            pass

        def isatty(self):
            return True

        def fileno(self):
            return 2

        def set_mode(self, handle, mode):
            self.modes.append(mode)
            return 1

    @pytest.fixture
    def windows(self, tenant, monkeypatch):
        tenant.any_loopback_port = True  # where ports can't be used again at once
        monkeypatch.setenv("AUTH0_CALLBACK_PORTS", "0")
        held = set()

        def locking(fd, mode, count):
            assert count == 1
            inode = os.fstat(fd).st_ino
            if mode == "lock":
                if inode in held:
                    raise PermissionError(13, "Permission denied")
                held.add(inode)
            elif inode in held:
                held.remove(inode)

        msvcrt = SimpleNamespace(LK_NBLCK="lock", LK_UNLCK="unlock", locking=locking)
        monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
        monkeypatch.setattr(auth0_cli, "sys", self.Module(sys, platform="win32"))
        fake = self.Module(os, name="nt")
        monkeypatch.setattr(auth0_cli, "os", fake)
        return fake

    def test_windows_keeps_sessions_in_local_app_data(self, windows, monkeypatch, tmp_path):
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
        assert FileCache().directory == str(tmp_path / "auth0_cli")

    def test_macos_keeps_sessions_in_application_support(self, monkeypatch, tmp_path):
        monkeypatch.setattr(auth0_cli, "sys", self.Module(sys, platform="darwin"))
        monkeypatch.setenv("HOME" if POSIX else "USERPROFILE", str(tmp_path))
        expected = tmp_path / "Library" / "Application Support" / "auth0_cli"
        assert FileCache().directory == str(expected)

    def test_windows_locks_one_byte_and_releases_it(self, windows, auth0, tenant):
        log_in(auth0, tenant)
        for _ in range(2):
            auth0.get_token(force_refresh=True)
        cache = FileCache(auth0._arguments["cache"])
        (key,) = cache.list()
        with cache.lock(key, 1), pytest.raises(NetworkError), cache.lock(key, 0.05):
            pass
        auth0.logout()
        assert cache.list() == []

    def test_windows_waits_while_another_process_reads_the_file(self, windows, auth0, tenant):
        refusals = [PermissionError(13, "sharing violation")] * 3

        def replace(source, target):
            if refusals:
                raise refusals.pop()
            os.replace(source, target)

        windows.replace = replace
        log_in(auth0, tenant)
        assert auth0.session()
        assert not refusals

    @pytest.mark.parametrize("name", ["open", "unlink"])
    def test_windows_waits_while_another_process_replaces_the_file(
        self, windows, auth0, tenant, name
    ):
        log_in(auth0, tenant)
        refusals = [PermissionError(13, "sharing violation")] * 3

        def call(path, *args, **options):
            if refusals and path.endswith(".json"):
                raise refusals.pop()
            return getattr(os, name)(path, *args, **options)

        setattr(windows, name, call)
        assert auth0.session()
        auth0.logout()
        assert not refusals
        assert auth0.session() is None

    def test_windows_opens_the_page_itself_and_shows_it_no_secret(self, windows, monkeypatch):
        for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "BROWSER"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("DISPLAY", ":0")  # an X server: no reason to look for its browsers
        monkeypatch.setenv("AUTH0_CLIENT_SECRET", "a-secret")
        opened = []
        windows.startfile = lambda url: opened.append((url, os.environ.get("AUTH0_CLIENT_SECRET")))
        assert auth0_cli._has_local_display()
        assert auth0_cli._open_browser("https://a.example/")
        assert opened == [("https://a.example/", None)]
        assert not auth0_cli._open_browser("C:\\a.exe")
        assert len(opened) == 1
        windows.startfile = lambda url: os.stat("/nowhere/at/all")
        assert not auth0_cli._open_browser("https://a.example/")
        assert os.environ["AUTH0_CLIENT_SECRET"] == "a-secret"

    def test_macos_opens_the_page_with_its_own_command(self, monkeypatch):
        monkeypatch.setattr(auth0_cli, "sys", self.Module(sys, platform="darwin"))
        monkeypatch.setattr("shutil.which", lambda name: name)
        monkeypatch.setenv("DISPLAY", ":0")
        monkeypatch.setenv("BROWSER", "")
        assert auth0_cli._find_browsers() == [["/usr/bin/open", "%s"]]

    @pytest.fixture
    def console(self, windows, watchful, monkeypatch):
        console = self.Console()
        kernel32 = SimpleNamespace(GetConsoleMode=lambda *_: 1, SetConsoleMode=console.set_mode)
        ctypes = SimpleNamespace(
            windll=SimpleNamespace(kernel32=kernel32),
            c_ulong=lambda: SimpleNamespace(value=3),
            c_void_p=int,
            byref=lambda value: value,
        )
        monkeypatch.setitem(sys.modules, "ctypes", ctypes)
        msvcrt = sys.modules["msvcrt"]
        msvcrt.get_osfhandle = lambda fd: fd
        msvcrt.kbhit = lambda: bool(console.keys)
        msvcrt.getwch = lambda: console.keys.pop(0)
        msvcrt.putwch = console.write
        auth0_cli.sys.stderr = auth0_cli.sys.stdin = console
        monkeypatch.delenv("TERM", raising=False)
        return console

    def test_windows_reads_a_pasted_address_and_counts_down(self, console, auth0, tenant):
        with ThreadPoolExecutor() as pool:
            login = pool.submit(auth0.login, flow="browser", open_browser=False, timeout=30)
            url = console.until(r"http://\S+/authorize\?\S+\n")[0].strip()
            assert console.until("paste its address here, or type c")
            assert console.until("\r\x1b\\[JWaiting  0:[0-9]{2} ")
            address = callback_of(tenant, url)
            keys = [*"xx\b\b", *address[:30], "\r", *address[30:], "\xe0", "M", "\r"]
            console.keys += keys  # an arrow key is two
            assert login.result(30).user["name"] == "Alice Liddell"
        assert console.modes == [7]

    def test_windows_takes_a_c_for_a_code(self, console, auth0, tenant, hurried):
        def approve(reply):
            tenant.approve(reply["user_code"])
            return reply

        tenant.break_next("/oauth/device/code", change=approve)
        with ThreadPoolExecutor() as pool:
            login = pool.submit(auth0.login, flow="browser", open_browser=False, timeout=30)
            console.until("Waiting")
            console.keys += ["c", "\r"]
            assert login.result(30)
        assert console.until(r"enter the code  \S*?\w{4}-\w{4}")

    def test_a_windows_console_too_old_for_escape_sequences_gets_plain_lines(self, console, auth0):
        sys.modules["ctypes"].windll.kernel32.SetConsoleMode = lambda handle, mode: 0
        with pytest.raises(LoginFailed):
            auth0.login(flow="browser", open_browser=False, timeout=0.01)
        assert "\x1b" not in console.text
        assert "paste its address here, or type c" in console.text

    @needs_fcntl
    def test_macos_flushes_to_the_platter(self, monkeypatch, auth0, tenant):
        flushed = []
        fake = self.Module(fcntl, F_FULLFSYNC=51, fcntl=lambda fd, what: flushed.append(what))
        monkeypatch.setitem(sys.modules, "fcntl", fake)
        monkeypatch.setattr(auth0_cli, "sys", self.Module(sys, platform="darwin"))
        log_in(auth0, tenant)
        assert flushed == [51, 51]  # of the file that finds out whether there is room, too

    @needs_fcntl
    def test_macos_flushes_as_it_can(self, monkeypatch, tmp_path):
        def refuse(*_):
            raise OSError(errno.ENOTSUP, "Operation not supported")

        flushed = []
        fake = self.Module(fcntl, F_FULLFSYNC=51, fcntl=refuse)
        monkeypatch.setitem(sys.modules, "fcntl", fake)
        monkeypatch.setattr(auth0_cli, "sys", self.Module(sys, platform="darwin"))
        monkeypatch.setattr(os, "fsync", flushed.append)
        FileCache(tmp_path / "sessions").write("a~b~c", b"x")
        assert len(flushed) == 2  # the file and its directory

    def test_windows_waits_two_seconds_for_another_process(self, windows, hurried, tmp_path):
        tries = []

        def replace(source, target):
            tries.append(source)
            assert len(tries) < 999
            raise PermissionError(13, "sharing violation")

        windows.replace = replace
        with pytest.raises(PermissionError):
            FileCache(tmp_path / "sessions").write("a~b~c", b"x")
        assert 1.9 < sum(hurried.sleeps) < 2.1

    @pytest.mark.parametrize(
        "command", ["token", "token --json", "token --exec-credential", "status --json"]
    )
    def test_windows_prints_lines_that_a_posix_shell_takes_whole(
        self, windows, auth0, tenant, monkeypatch, command
    ):
        log_in(auth0, tenant)
        out = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\r\n")
        monkeypatch.setattr(sys, "stdout", out)
        assert auth0_cli.main(command.split(), defaults=auth0) == 0
        lines = out.buffer.getvalue().decode().split("\n")
        assert [line.isprintable() for line in lines] == [True, True]
        assert lines[1] == ""

    @pytest.mark.parametrize("command", ["status", "doctor"])
    def test_windows_names_the_place_to_which_a_file_was_redirected(
        self, auth0, tenant, call, monkeypatch, command
    ):
        log_in(auth0, tenant)
        monkeypatch.setattr(os.path, "realpath", lambda path: path.replace("sessions", "elsewhere"))
        place = str(auth0._arguments["cache"]).replace("sessions", "elsewhere")
        assert place in call(command).out

    def test_windows_shares_no_port(self, windows):
        with auth0_cli._Listener((0,)) as listener:
            assert not listener._server.allow_reuse_address
