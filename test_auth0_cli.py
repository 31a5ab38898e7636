#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tests of auth0_cli.py and, first, the practice tenant that they run against.

    python test_auth0_cli.py demo [--device]    a tour: log in, token, status, log out
    python test_auth0_cli.py tenant [--port N]  the practice tenant alone, until Ctrl-C
    pytest                                      the tests

The practice tenant behaves on a loopback port as Auth0 is documented to behave on the Internet.
It needs nothing but Python, has two users, five applications and a clock that tests move, and
breaks on demand. Nothing in it is secret: its keys and passwords stand below.
"""

import argparse
import base64
import contextlib
import email.utils
import hashlib
import hmac
import html
import json
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
    """An RSA key, given as two primes of 1024 bits; published, so good for practice only."""

    def __init__(self, kid, p, q):
        self.kid, self.p, self.q = kid, int(p, 16), int(q, 16)
        self.n, self.e = self.p * self.q, 65537
        self.d = pow(self.e, -1, (self.p - 1) * (self.q - 1))

    def jwk(self):
        """Return the public half as a member of a JWKS."""
        n, e = b64url(self.n.to_bytes(256, "big")), b64url(self.e.to_bytes(3, "big"))
        return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": n, "e": e}

    def sign(self, message):
        """Return the RS256 signature (RFC 8017, sections 8.2.1 and 5.1.2)."""
        digest = SHA256_PREFIX + hashlib.sha256(message).digest()
        padded = b"\0\1" + b"\xff" * (253 - len(digest)) + b"\0" + digest
        # Modulo each prime on its own: four times as fast, which a stampede of clients needs.
        number = int.from_bytes(padded, "big")
        at_p, at_q = (pow(number, self.d % (prime - 1), prime) for prime in (self.p, self.q))
        signature = at_q + self.q * ((at_p - at_q) * pow(self.q, -1, self.p) % self.p)
        return signature.to_bytes(256, "big")


KEYS = [
    Key(
        "practice-1",
        "ec17440368fca08760414085bcc375aba32765d12248308fb4880adc41a09530fd542a71afb4b3b2080449"
        "5b4798268704e2f078667e46c16c83081b91789cbb2dfc5ac3936f9e72c38911f2363732f02b0c267c87b6"
        "1cb5a615db6388c2c80b75790063c2e13166be4e42ea1c26492e5b3673a9eda2c01e536c5fd4c69aeec5",
        "dbe61f7768446bea51c07ab816dbe67e70501ae8115f4d5d1a2c770b90254f56d905f432e6dd6094959e01"
        "fa66645e535a658299bfa756eb9a57cc027517c82fa2ac3725702ad163939210173a4766334ec06bbcb41f"
        "95f75335d4114e7b7e75b37da8987cef1bd5543d3f4dc1393c6e46c21897dceec6d90f668e602d2e224b",
    ),
    Key(
        "practice-2",
        "da58350fef299f141cbd5f924378b6bd70eb9b949242809999a2958b90f095cdfc47ceb12101109fc89d90"
        "db020f698970bb8440f056cc8cd4ee6b15c6e502e333cb30529b9154822d5e987317758e2b9e065ab5cdc5"
        "14c1200919952cc7a6c05163d5fc52e7dd24144b5a3cf10aa4961490650b6d29909dfbe8913407d53c09",
        "d3361178ecfd9bd7d77338f39b662ac5c63a26f11c4ae60770bf131adc0b4277953a91d7e05cf495ea4682"
        "0cbdeaac373ab20e141decf24b6114579c302caf111c7a3b5e333bca2d3ab4f2224a8cd2f0e1ddfe6c13ab"
        "9ec153cbd5fab29c0cb84087d8d56936d12bced20b7db76116bbc3e102dca2d044a6806973e938967c4d",
    ),
    Key(
        "practice-3",
        "e992606c7f37595f5b629ab8fcfb42500b59d80774bfff66e32eaa54514bff24c913a3794dfecc8e15d9ad"
        "4123dde216961b60a8c573281ba47e41f27c492b883dc44a611fd9cf42db17cde98e6d624c2dec52e8a2d3"
        "7fa6a323c4596bb36d4de0a57bf85eba5721b3c3d1b71ea28ade3b05e262b8628443717abb4ae0fd2259",
        "cc208876dbdb613373158666b4a1e8e5b48e178a06fb917159a5fb6d1900f238944603fd6c474f9af2a85a"
        "3ffaabd4797763cd7daebf9dd7f3ddaabeedf7dc54eb7f5b92067a8b97add11e03fc3383cd98c436c7145d"
        "6e88de0da02b88982f583abf0a1ebcfed62c5a262666bd205131608e1ddc5fc830ea9845f9e54fe8fb5b",
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
    """Issue a device code and a user code."""
    params = request.params
    client = tenant.clients.get(required(params, "client_id"))
    if client is None:
        raise oauth_error("client")
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
    """Return a token response without refresh token."""
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


# ---- Practice tenant: HTTP -----------------------------------------------------------------------


class Server(ThreadingHTTPServer):
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
        """Forget the connection."""
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """Report a bug of the tenant, not a client that went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def close(self):
        """Stop, and end the connections that clients keep open."""
        self.shutdown()
        self.server_close()
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
        request.status = request.error = None  # until the answer is known
        fault, reply = tenant.answer(request, problem_of(request, url.query, pairs))
        self.transmit(reply.encode(tenant.now()), **fault)

    do_POST = do_GET  # noqa: N815

    def transmit(self, parts, close=None, drip=None, **_):
        """Send the answer, as badly as the fault wants it."""
        head, body = parts
        data = head + body
        if close:
            self.close_connection = True
            data = head + body[: len(body) // 2] if close == "middle" else b""
        if not drip:
            self.wfile.write(data)
            return
        for byte in data:
            self.wfile.write(bytes([byte]))
            time.sleep(drip)

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


# ---- Practice tenant -----------------------------------------------------------------------------

FAULTS = {"status", "body", "headers", "close", "drip", "grant_type", "change"}
SECRET_PARAM = re.compile(
    "code|code_verifier|device_code|password|client_secret|client_assertion|token|refresh_token"
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
        self.apis = {API: ["read:things", "write:things"], OTHER_API: ["read:other"]}
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
        self._changed = threading.Condition()

    def start(self):
        """Serve, on the same port again after `close`."""
        self._server = Server(self, self.port)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def close(self):
        """Refuse connections from now on."""
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
            reply = Reply(fault.get("status", 200), fault.get("body", b""))
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
    """Return the users by name."""

    def user(key, name, password):
        record = SimpleNamespace(sub=f"auth0|{key}", name=name, email=f"{key}@example.test")
        record.password, record.blocked, record.mfa = password, False, False
        return record

    return {
        "alice": user("alice", "Alice Liddell", "wonderland-1"),
        "bob": user("bob", "Bob Builder", "builder-1"),
    }


def fetch(url, fields=None):
    """Open the URL like a browser without a proxy; return status, url, text and headers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    body = None if fields is None else urlencode(fields).encode()
    try:
        response = opener.open(url, body, timeout=30)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        last = SimpleNamespace(status=response.status, url=response.geturl())
        last.headers, last.text = response.headers, response.read().decode("utf-8", "replace")
    return last


# ---- Commands: tenant and demo -------------------------------------------------------------------


def serve_until_interrupted(port):
    """Run the `tenant` command."""
    with Tenant(port=port) as tenant:
        machine = tenant.clients["practice-machine"]
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
        print(
            f"""For a machine without a user, export these instead:
  AUTH0_CLIENT_ID={machine.client_id}
  AUTH0_CLIENT_SECRET='{machine.client_secret}'""",
            file=sys.stderr,
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
    return 0


def practice_environment(tenant):
    """Return the variables that point auth0_cli.py at the tenant."""
    return {
        "AUTH0_DOMAIN": tenant.domain,
        "AUTH0_CLIENT_ID": "practice-native",
        "AUTH0_AUDIENCE": API,
    }


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
            '   whole: curl -H "Authorization: Bearer $(python auth0_cli.py token)" …',
        )
        with self.start("token", stdout=subprocess.PIPE) as process:
            access_token = process.stdout.read().strip()
        self.finish()
        say(access_token[:20] + "…")
        say("", "3. See who is logged in, to what, until when. This asks nobody, it reads a file.")
        self.run_command("status")
        say("", "4. Log out: the refresh token is revoked at the tenant, the file deleted.")
        self.run_command("logout")
        say(
            "",
            "That was all. With your own tenant: set AUTH0_DOMAIN and AUTH0_CLIENT_ID (see",
            "README.md, 'Set up Auth0'), then: python auth0_cli.py login",
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
                        f"   code {event['user_code']} and approves. The program is told at its",
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


def interrupt(*_):
    """End on SIGTERM as on Ctrl-C, with everything cleaned up."""
    raise KeyboardInterrupt


def main(argv=None):
    """Run a command of this file."""
    signal.signal(signal.SIGTERM, interrupt)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", metavar="demo | tenant", required=True)
    demo = commands.add_parser("demo", help="log in, token, status, log out against the tenant")
    demo.add_argument("--device", action="store_true", help="with a device code, not a browser")
    tenant = commands.add_parser("tenant", help="serve the practice tenant until Ctrl-C")
    tenant.add_argument("--port", type=int, default=0, help="default: any free port")
    options = parser.parse_args(argv)
    try:
        if options.command == "demo":
            return run_demo(options.device)
        return serve_until_interrupted(options.port)
    except KeyboardInterrupt:
        return 130
    except (OSError, OverflowError) as error:
        print(f"test_auth0_cli: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())

# ---- Tests ---------------------------------------------------------------------------------------

import pickle
import queue
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

import auth0_cli
from auth0_cli import (
    Auth0,
    ConfigError,
    FileCache,
    LoginFailed,
    LoginRequired,
    MemoryCache,
    OAuthError,
)

OTHERS = "AUTH0_|SSH_|BROWSER$|DISPLAY$|WAYLAND_|WSL_|XDG_|.*_proxy$"
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX modes, links and fork")


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


class Running:
    """A started `auth0_cli.py`."""

    def __init__(self, args, env, stdin, cwd):
        self.args = args
        self.process = subprocess.Popen(
            [sys.executable, str(Demo.program), *args],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.out, self.err = Stream(self.process.stdout), Stream(self.process.stderr)
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError), self.process.stdin as pipe:
                pipe.write(stdin)

    def event(self):
        """Wait for the next JSON line on stdout."""
        line = self.out.line()
        assert line, f"{self.args} ended without another event: {self.err.whole()}"
        return json.loads(line)

    def finish(self, exit=0):  # noqa: A002
        """Wait for the end with this exit code (None: any); return code, out and err."""
        out, err = self.out.whole(), self.err.whole()  # first, since `wait` polls
        code = self.process.wait(5)
        assert exit in (None, code), f"{self.args} exited with {code}: {err}"
        return SimpleNamespace(code=code, out=out, err=err)


class Cli:
    """The command line, in an environment of its own."""

    def __init__(self, tenant, directory):
        self.tenant, self.started = tenant, []
        self.cache, self.home = directory / "sessions", directory / "home"
        self.env = {**os.environ, **practice_environment(tenant), "TMPDIR": str(self.home)}
        self.env["AUTH0_CLI_CACHE"] = str(self.cache)

    def start(self, *args, stdin=None, env=None):
        """Start a command; `env` changes the environment (None deletes)."""
        running = Running(args, overridden(self.env, env or {}), stdin, self.home)
        self.started.append(running)
        return running

    def run(self, *args, stdin=None, env=None, exit=0):  # noqa: A002
        """Run a command to its end."""
        return self.start(*args, stdin=stdin, env=env).finish(exit)

    def login(self, *args, user="alice", env=None):
        """Log in with a browser; the result has the browser's last page and the events, too."""
        running = self.start("login", "--flow", "browser", "--no-browser", "--json", *args, env=env)
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
            if running.process.poll() is None:
                running.process.kill()
            running.finish(None)

    def leaks(self):
        """Return where a secret is that belongs in session files and in what `token` prints."""
        texts = {f"stderr of {running.args}": running.err.text for running in self.started}
        for running in self.started:
            if "token" not in running.args:
                texts[f"stdout of {running.args}"] = running.out.text
        for path in self.home.rglob("*"):
            if path.is_file() and "auth0_cli" not in path.parts:
                texts[path] = path.read_text("utf-8", "replace")
        return {
            place for place in texts for secret in self.tenant.secrets if secret in texts[place]
        }


def log_in(auth0, tenant, user="alice", **options):
    """Log in within this process; the browser runs in a thread."""
    with ThreadPoolExecutor() as pool:

        def show(prompt):
            pool.submit(tenant.login_as, prompt["url"], user)

        return auth0.login(flow="browser", show=show, open_browser=False, timeout=20, **options)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """Hide the settings, the proxies, the browser and the sessions of whoever runs the tests."""
    for name in list(os.environ):
        if re.match(OTHERS, name, re.IGNORECASE):
            monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


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


@pytest.fixture
def auth0(cli):
    """Return the library's view of the same session."""
    return Auth0(cli.tenant.domain, "practice-native", audience=API, cache=cli.cache)


@pytest.fixture
def logged_in(cli, auth0):
    log_in(auth0, cli.tenant)
    return cli


def parameters(url):
    return dict(parse_qsl(urlsplit(url).query))


def event_of(result):
    """Return the last JSON line."""
    return json.loads(result.out.splitlines()[-1])


class TestLoginWithBrowser:
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

    @posix_only
    def test_opens_the_browser_of_the_environment(self, cli, tenant):
        script = "import sys, urllib.request as u; u.urlopen(sys.argv[1])"
        browser = f"'{sys.executable}' -c '{script}' %s"
        running = cli.start("login", "--flow", "browser", env={"BROWSER": browser})
        tenant.wait_for(lambda: tenant.requests)
        tenant.login_as(f"{tenant.domain}/authorize?{urlencode(tenant.requests[0].params)}")
        result = running.finish()
        assert result.out == ""
        assert f"Logged in to {tenant.domain} as Alice Liddell" in result.err

    @posix_only
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_interruption_leaves_nothing_behind(self, cli, number, code):
        running = cli.start("login", "--flow", "browser", "--no-browser", "--json")
        running.event()
        running.process.send_signal(number)
        assert "Traceback" not in running.finish(code).err
        assert cli.status() == []

    def test_an_ssh_session_is_told_which_port_to_forward(self, cli, tenant):
        env = {"SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"}
        running = cli.start("login", "--flow", "browser", "--no-browser", env=env)
        lines = iter(running.err.line, "")
        url = next(line.strip() for line in lines if "/authorize?" in line)
        port = urlsplit(parameters(url)["redirect_uri"]).port
        assert any(line.strip() == f"ssh -L {port}:127.0.0.1:{port} 192.0.2.2" for line in lines)
        tenant.login_as(url)
        running.finish()


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
        return time.monotonic() + sum(self.sleeps)


class TestLoginWithDeviceCode:
    @pytest.fixture
    def clock(self, tenant, monkeypatch):
        clock = Clock(tenant)
        monkeypatch.setattr(auth0_cli, "time", clock)
        return clock

    @pytest.fixture
    def prompts(self, auth0):
        """Log in and collect the prompts: `prompts.login()`."""
        prompts = SimpleNamespace(seen=[])
        prompts.login = lambda **more: auth0.login(flow="device", show=prompts.seen.append, **more)
        prompts.code = lambda: prompts.seen[0]["user_code"]
        return prompts

    def test_approval_on_another_device_logs_in(self, cli, tenant):
        tenant.device_interval = 1
        running = cli.start("login", "--flow", "device", "--json")
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

    def test_waits_a_fifth_longer_than_the_interval_before_each_poll(self, tenant, prompts, clock):
        clock.then[3] = lambda: tenant.approve(prompts.code())
        prompts.login()
        assert clock.sleeps == [pytest.approx(6)] * 3
        errors = [request.error for request in tenant.requests if "token" in request.path]
        assert errors == ["authorization_pending", "authorization_pending", None]

    def test_slows_down_by_five_seconds_for_good(self, tenant, prompts, clock):
        tenant.break_next("/oauth/token", status=429, body={"error": "slow_down"})
        clock.then[3] = lambda: tenant.approve(prompts.code())
        prompts.login()
        assert clock.sleeps == [pytest.approx(seconds) for seconds in (6, 12, 12)]

    @pytest.mark.parametrize(
        "fault", [{"status": 503}, {"close": "before"}, {"close": "middle"}, {"body": "<html>"}]
    )
    def test_lives_through_a_broken_network(self, tenant, prompts, clock, fault):
        clock.then[2] = lambda: tenant.approve(prompts.code())
        tenant.break_next("/oauth/token", **fault)
        assert prompts.login().user["sub"] == "auth0|alice"

    @pytest.mark.parametrize(
        ("decide", "error"),
        [
            (lambda tenant, code: tenant.deny(code), "access_denied"),
            (lambda tenant, code: tenant.advance(1000), "expired_token"),
            (lambda tenant, code: None, "expired_token"),
        ],
        ids=["denied", "expired at the tenant", "nobody answers"],
    )
    def test_ends_without_an_approval(self, tenant, prompts, clock, decide, error):
        clock.then[2] = lambda: decide(tenant, prompts.code())
        with pytest.raises(LoginFailed) as caught:
            prompts.login(timeout=30)
        assert (caught.value.error, caught.value.exit_code) == (error, 4)

    def test_organization_is_refused_before_any_request(self, cli, tenant):
        result = cli.run("login", "--flow", "device", "--organization", "org_1", exit=2)
        assert "--flow browser" in result.err
        assert tenant.requests == []

    def test_a_grant_that_is_off_is_named(self, cli):
        result = cli.run("login", "--flow", "device", "--client-id", "practice-nodevice", exit=4)
        assert "Device Code" in result.err
        assert "Grant Types" in result.err


class TestMachineToMachine:
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

    @pytest.mark.parametrize(("name", "end"), [("secret", ""), ("secret", "\r\n"), ("-", "\n")])
    def test_secret_comes_from_a_file_or_stdin(self, machine, tmp_path, name, end):
        secret = machine.env.pop("AUTH0_CLIENT_SECRET") + end
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

    def test_login_needs_the_secret_only(self, machine):
        assert event_of(machine.run("login", "--json"))["user"] is None
        (session,) = machine.status()
        assert (session["user"], session["refreshable"]) == (None, False)
        del machine.env["AUTH0_CLIENT_SECRET"]
        machine.run("login", "--flow", "client-credentials", exit=2)

    def test_assertion_is_made_anew_for_each_request(self, tenant):
        tenant.clients["practice-machine"].assertion = True

        def assertion():
            return tenant.sign({"iss": "practice-machine", "jti": secrets.token_hex(8)})

        auth0 = Auth0(
            tenant.domain,
            "practice-machine",
            client_assertion=assertion,
            audience=API,
            cache=MemoryCache(),
        )
        assert auth0.get_token() != auth0.get_token(force_refresh=True)
        assert len(set(tenant.assertions)) == 2

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a directory that takes no file")
    def test_token_comes_even_where_nothing_can_be_saved(self, machine):
        result = machine.run("token", env={"AUTH0_CLI_CACHE": "/proc/self/sessions"})
        assert result.out.strip() in machine.tenant.access_tokens
        assert "auth0_cli: warning: " in result.err


class TestPasswordLogin:
    REALM = "Username-Password-Authentication"

    @pytest.mark.parametrize(
        ("flags", "grant_type"), [([], "password"), (["--realm", REALM], "password-realm")]
    )
    def test_takes_the_password_from_stdin_and_warns(self, cli, tenant, flags, grant_type):
        arguments = ["login", "--flow", "password", "--username", "alice", *flags]
        result = cli.run(*arguments, stdin="wonderland-1\n")
        assert "auth0_cli: warning: the password flow is discouraged" in result.err
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


def expire_in(seconds):
    """Return the change of a session file whose tokens live for so long yet."""

    def change(record):
        for token in record["tokens"]:
            token.update(obtained_at=time.time() - 3600, expires_at=time.time() + seconds)

    return change


class TestGetToken:
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

    def test_force_refresh_gets_another(self, logged_in):
        assert logged_in.token() != logged_in.token("--force-refresh")

    def test_network_failure_serves_the_old_one_while_it_is_valid(self, logged_in, tenant):
        tenant.leeway = 60
        before = logged_in.token()
        logged_in.edit(expire_in(40))
        tenant.break_all("/oauth/token", close="after")
        assert logged_in.token() == before
        logged_in.expire()
        result = logged_in.run("token", exit=5)
        assert "try again" in result.err
        tenant.mend()
        assert logged_in.token() != before

    def test_revoked_session_is_exit_3_with_the_next_step(self, logged_in, tenant):
        tenant.revoke_sessions("alice")
        logged_in.expire()
        for _ in range(2):
            result = logged_in.run("token", exit=3)
            assert "auth0_cli.py login --domain" in result.err
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
        tenant.token_delay = 0.3
        running = logged_in.start("token", "--force-refresh")
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        session.write_bytes(newer)
        access = tenant.access_tokens[running.finish().out.strip()]
        assert access[0].sub == "auth0|bob"

    def test_scopes_that_are_silently_dropped_cause_one_refresh(self, logged_in, tenant):
        scope = ["--scope", "openid read:things no:such"]
        assert logged_in.token(*scope) == logged_in.token(*scope)
        assert tenant.count("refresh_token") == 1

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

    def test_the_user_can_not_change_at_a_refresh(self, logged_in, tenant):
        logged_in.expire()
        tenant.id_claims = {"sub": "auth0|mallory"}
        assert "sub" in logged_in.run("token", exit=4).err
        assert logged_in.status()[0]["user"]["sub"] == "auth0|alice"

    def test_keys_are_fetched_again_only_when_an_unknown_one_signs(self, logged_in, tenant, auth0):
        for rotations, count in ((0, 1), (1, 1), (1, 2)):  # the stored keys hold the next one, too
            for _ in range(rotations):
                tenant.rotate_keys()
            auth0.get_token(force_refresh=True)
            assert tenant.count("/.well-known/jwks.json") == count

    def test_login_on_demand_shows_people_a_code_where_no_browser_is_seen(self, cli, tenant):
        tenant.device_interval = 1
        assert "login --domain" in cli.run("token", exit=3).err
        running = cli.start("token", "--login", env={"SSH_TTY": "/dev/pts/0"})
        lines = (line.strip() for line in iter(running.err.line, ""))
        url = next(line for line in lines if "?user_code=" in line)
        tenant.login_as(url)
        result = running.finish()
        assert result.out.strip() in tenant.access_tokens
        assert f"{tenant.issuer}activate\n" in result.err
        assert parameters(url)["user_code"] in result.err.replace(url, "")


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

    def test_threads_share_one_refresh(self, logged_in, tenant, auth0):
        logged_in.expire()
        tenant.token_delay = 0.2
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(auth0.get_token) for _ in range(8)]
            assert len({call.result() for call in calls}) == 1
        assert tenant.count("refresh_token") == 1

    @posix_only
    def test_a_fork_amid_a_refresh_waits_for_it(self, logged_in, tenant):
        logged_in.expire()
        tenant.token_delay = 0.5
        script = """if True:
            import os, sys, threading
            from auth0_cli import Auth0
            auth0 = Auth0()
            thread = threading.Thread(target=auth0.get_token)
            thread.start()
            print("started", flush=True)
            sys.stdin.readline()
            child = os.fork()
            print(auth0.get_token(), flush=True)
            if child == 0:
                os._exit(0)
            thread.join()
            sys.exit(os.waitpid(child, 0)[1])"""
        options = {"encoding": "utf-8", "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        options.update(env=logged_in.env, cwd=str(Demo.program.parent))
        command = [sys.executable, "-W", "ignore", "-c", script]
        with subprocess.Popen(command, **options) as process:
            process.stdout.readline()
            tenant.wait_for(lambda: tenant.count("refresh_token"))
            out, _ = process.communicate("now\n", timeout=20)
        assert process.returncode == 0
        first, second = out.split()
        assert first == second
        assert tenant.count("refresh_token") == 1

    @pytest.mark.parametrize("how", ["logout", "unlink"])
    def test_a_refresh_in_flight_does_not_undo_a_logout(self, logged_in, tenant, how):
        session = logged_in.session_file
        tenant.token_delay = 0.3
        running = logged_in.start("token", "--force-refresh")
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        if how == "unlink":
            session.unlink()
        else:
            logged_in.run(how)
        running.finish()
        assert not session.exists()
        logged_in.run("token", exit=3)

    def test_a_refresh_in_flight_does_not_undo_a_login(self, logged_in, tenant, auth0):
        tenant.token_delay = 0.2
        running = logged_in.start("token", "--force-refresh")
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        log_in(auth0, tenant, "bob")
        running.finish()
        assert auth0.session().user["sub"] == "auth0|bob"
        tenant.token_delay = 0
        logged_in.token("--force-refresh")

    def test_what_a_killed_process_held_is_free(self, logged_in, tenant):
        tenant.token_delay, tenant.leeway = 0.3, 60
        running = logged_in.start("token", "--force-refresh")
        tenant.wait_for(lambda: tenant.count("refresh_token"))
        running.process.kill()
        running.finish(None)
        assert logged_in.token("--force-refresh") in tenant.access_tokens

    def test_a_valid_token_and_the_status_wait_for_no_lock(self, logged_in):
        with FileCache(logged_in.cache).lock(logged_in.session_file.stem, 5):
            assert logged_in.token()
            assert logged_in.status()


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

    def test_logout_without_network_deletes_and_says_what_is_left(self, logged_in, tenant):
        tenant.close()
        result = logged_in.run("logout", exit=5)
        assert "not revoked" in result.err
        assert logged_in.status() == []

    def test_logout_of_all_ends_every_session(self, logged_in, tenant):
        logged_in.login("--profile", "work", user="bob")
        logged_in.run("logout", "--all")
        assert logged_in.status() == []
        assert not any(session.is_alive for session in tenant.sessions)

    def test_logout_of_nobody_is_fine(self, cli, tenant):
        cli.run("logout")
        cli.run("logout", "--all")
        assert tenant.requests == []

    def test_a_second_login_replaces_the_first(self, logged_in):
        logged_in.login(user="bob")
        (session,) = logged_in.status()
        assert session["user"]["name"] == "Bob Builder"


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
            "login --param state=mine",
            "login --param redirect_uri=https://evil.example/",
            "login --param max_age=soon",
            "token --domain http://acme.auth0.com",
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

    def test_flag_beats_environment_beats_session(self, logged_in):
        token = logged_in.token()
        wrong = {"AUTH0_CLIENT_ID": "practice-other"}
        logged_in.run("token", env=wrong, exit=3)
        assert logged_in.token("--client-id", "practice-native", env=wrong) == token
        nothing = dict.fromkeys(["AUTH0_DOMAIN", "AUTH0_CLIENT_ID", "AUTH0_AUDIENCE"])
        assert logged_in.token(env=nothing) == token

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
        for spelling in (f"{tenant.domain}/", f" {tenant.domain}", tenant.domain.upper()):
            assert logged_in.token("--domain", spelling) == token
        assert tenant.count("refresh_token") == 0

    def test_verbose_tells_each_request_in_a_line(self, logged_in, tenant):
        asked = len(tenant.requests)
        result = logged_in.run("token", "--force-refresh", "-v")
        lines = result.err.splitlines()
        assert len(lines) == len(tenant.requests) - asked
        assert re.fullmatch(r".*POST /oauth/token.* 200 .*\d+ ms", lines[0])

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    def test_a_token_that_can_not_be_printed_is_exit_1(self, logged_in):
        command = [sys.executable, str(Demo.program), "token"]
        with open("/dev/full", "w") as full:
            options = {"stdout": full, "stderr": subprocess.PIPE, "encoding": "utf-8"}
            done = subprocess.run(command, env=logged_in.env, check=False, **options)
        assert done.returncode == 1
        assert re.fullmatch(r"auth0_cli: .+\n", done.stderr)


class DictCache:
    """The least that `cache=` accepts."""

    def __init__(self):
        self.data, self.mutex = {}, threading.Lock()

    def read(self, key):
        return self.data.get(key)

    def write(self, key, data):
        self.data[key] = data

    def delete(self, key):
        self.data.pop(key, None)

    def list(self):
        return list(self.data)

    @contextlib.contextmanager
    def lock(self, key, timeout):
        with self.mutex:
            yield


class TestLibrary:
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

    def test_no_repr_tells_a_secret(self, tenant):
        auth0 = Auth0(
            tenant.domain, "practice-web", client_secret="web-secret-~!%:+ &x", cache=MemoryCache()
        )
        session = log_in(auth0, tenant)
        text = f"{auth0!r} {auth0.bearer!r} {session!r} {vars(session)}"
        assert not [secret for secret in tenant.secrets if secret in text]

    def test_params_of_the_client_itself_are_refused(self, tenant):
        auth0 = Auth0(tenant.domain, "practice-native", params={"nonce": "x"}, cache=MemoryCache())
        with pytest.raises(ConfigError):
            auth0.login(flow="browser", open_browser=False, timeout=1)


@posix_only
class TestSessionFiles:
    def test_are_private_whole_and_without_litter(self, cli):
        before = os.umask(0)
        try:
            cli.login()
            cli.token("--force-refresh")
        finally:
            os.umask(before)
        modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in cli.cache.iterdir()}
        assert modes == {".json": 0o600, ".lock": 0o600}
        assert stat.S_IMODE(cli.cache.stat().st_mode) == 0o700
        assert json.loads(cli.session_file.read_text())["version"] == 1

    def test_stand_in_the_state_directory_by_default(self, cli):
        cli.login(env={"AUTH0_CLI_CACHE": None, "XDG_STATE_HOME": None})
        (path,) = cli.home.rglob("*.json")
        if sys.platform == "linux":
            assert path.parent == cli.home / ".local" / "state" / "auth0_cli"

    @pytest.mark.parametrize(("of", "mode"), [("session_file", 0o644), ("cache", 0o755)])
    def test_that_others_can_read_are_closed_with_a_warning(self, logged_in, of, mode):
        path = getattr(logged_in, of)
        path.chmod(mode)
        result = logged_in.run("token")
        assert f"auth0_cli: warning: {path} " in result.err
        assert stat.S_IMODE(path.stat().st_mode) == mode & 0o700
        assert logged_in.run("token").err == ""

    @pytest.mark.parametrize(("of", "mode"), [("session_file", 0o666), ("cache", 0o777)])
    @pytest.mark.parametrize("command", ["token", "logout"])
    def test_that_others_could_have_written_are_refused(self, logged_in, of, mode, command):
        path, data = getattr(logged_in, of), logged_in.session_file.read_bytes()
        path.chmod(mode)
        assert str(path) in logged_in.run(command, exit=1).err
        assert logged_in.session_file.read_bytes() == data

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

    @pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["directory", "fifo"])
    def test_that_are_no_files_are_refused_without_a_wait(self, logged_in, make):
        session = logged_in.session_file
        session.unlink()
        make(session, 0o600)
        assert str(session) in logged_in.run("token", exit=1).err

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: b"",
            lambda data: data[: len(data) // 2],
            lambda data: data + b"{}",
            lambda data: b"\xff" + data,
            lambda data: b"[" * 100_000,
            lambda data: re.sub(rb'("expires_at": )[\d.]+', rb"\1NaN", data),
            lambda data: re.sub(rb'("expires_at": )[\d.]+', rb"\g<1>1e999", data),
            lambda data: data.replace(b'"profile": "default"', b'"profile": "another"'),
            lambda data: b" " * 2_000_000 + data,
        ],
        ids=["empty", "half", "more", "bytes", "deep", "nan", "inf", "renamed", "huge"],
    )
    def test_that_are_damaged_are_set_aside_and_named(self, logged_in, damage):
        session = logged_in.session_file
        damaged = damage(session.read_bytes())
        session.write_bytes(damaged)
        error = logged_in.run("token", exit=3).err
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

    def test_are_not_changed_by_reading(self, logged_in):
        data = logged_in.session_file.read_bytes()
        logged_in.token()
        logged_in.status()
        assert logged_in.session_file.read_bytes() == data
