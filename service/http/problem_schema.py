"""The JSON body of an error, as the OpenAPI document shows it."""

from pydantic import BaseModel, ConfigDict


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True)


class FieldErrorBody(_Body):
    """One parameter that is wrong, and what it may be."""

    name: str
    reason: str
    allowed: str | list[str] | None = None


class Problem(_Body):
    """RFC 9457 problem details; `code` is one of docs/errors.md."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "/problems/unknown-class",
                    "title": "The checkpoint has no such class",
                    "status": 422,
                    "detail": "b-all@1 has no class 'pro'; it has benign, early_pre_b, pre_b, pro_b.",
                    "instance": "/generate",
                    "code": "unknown_class",
                    "request_id": "01KAQ3V5T8X2M4N6P8R0S2T4V6",
                    "errors": [
                        {
                            "name": "class",
                            "reason": "unknown class 'pro'",
                            "allowed": ["benign", "early_pre_b", "pre_b", "pro_b"],
                        }
                    ],
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str | None
    errors: list[FieldErrorBody]
    retry_after_seconds: int | None = None
