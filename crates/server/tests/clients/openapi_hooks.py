"""Keeps the answers short that schemathesis asks for: it reads every one of them to its end."""

import schemathesis

TOKENS = 8
ANSWERS = 2
# What bounds an answer, where there is no bound if nothing is said.
BOUND = {"/v1/chat/completions": "max_tokens", "/v1/responses": "max_output_tokens"}


def limit(body, field, most):
    """Lowers a value that is allowed; values that are to be refused stay as they are."""
    value = body.get(field)
    if isinstance(value, int) and not isinstance(value, bool) and value > most:
        body[field] = most


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict):
        return body
    path = context.operation.path
    if path in BOUND and body.get(BOUND[path]) is None:
        body[BOUND[path]] = TOKENS
    for field in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        limit(body, field, TOKENS)
    limit(body, "n", ANSWERS)
    if path.startswith("/api/") and isinstance(body.get("options") or {}, dict):
        body["options"] = {"num_predict": TOKENS, **(body.get("options") or {})}
        limit(body["options"], "num_predict", TOKENS)
    return body
