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
