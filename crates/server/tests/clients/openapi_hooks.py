"""Keeps the answers short that schemathesis asks for: it reads every stream to its end."""

import schemathesis

LIMITS = {"max_tokens": 8, "max_completion_tokens": 8, "max_output_tokens": 8, "n": 2}


@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict):
        for name, most in LIMITS.items():
            # Values that are to be refused stay as they are.
            if isinstance(body.get(name), int) and not isinstance(body[name], bool) and body[name] > most:
                body[name] = most
    return body
