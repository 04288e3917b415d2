"""Checkpoints: which there are, what they can draw, what they say of themselves."""

from fastapi import APIRouter

from service.access.auth import Scope, require
from service.context import ServicesDep
from service.http.openapi import problems
from service.http.parameters import ModelParameter
from service.schemas import (
    ClassBody,
    ClassesBody,
    ModelBody,
    ModelCardBody,
    ModelEntryBody,
    ModelsBody,
)

router = APIRouter(tags=["models"], dependencies=[require(Scope.MODELS_READ)])


@router.get("/classes", responses=problems(404), summary="The classes of a checkpoint")
def list_classes(services: ServicesDep, model: ModelParameter = None) -> ClassesBody:
    """The slugs that `class` may be, in label order."""
    checkpoint = services.models.resolve(model)
    images = checkpoint.manifest.dataset.images_per_class
    return ClassesBody(
        model=ModelBody.of(checkpoint.manifest),
        classes=[
            ClassBody(slug=slug, index=index, images=images.get(slug))
            for index, slug in enumerate(checkpoint.manifest.classes)
        ],
    )


@router.get("/models", responses=problems(), summary="All models with their versions and aliases")
def list_models(services: ServicesDep) -> ModelsBody:
    """What the model store holds."""
    models = services.models
    return ModelsBody(
        default=models.default_reference,
        models=[
            ModelEntryBody(
                name=name,
                versions=list(models.versions(name)),
                aliases=models.aliases(name),
                history=list(models.history(name)),
            )
            for name in models.names()
        ],
    )


@router.get("/models/{name}/versions/{version}", responses=problems(404), summary="A version's model card")
def get_model(services: ServicesDep, name: str, version: str) -> ModelCardBody:
    """The whole manifest: data, training history, licence, intended use."""
    checkpoint = services.models.of_version(name, version)
    reference = checkpoint.manifest.reference
    has_report = services.models.report(checkpoint) is not None
    return ModelCardBody(
        digest=f"sha256:{checkpoint.manifest.digest}",
        aliases=[alias for alias, target in services.models.aliases(name).items() if target == version],
        manifest=checkpoint.manifest.model_dump(mode="json"),
        links={
            "self": f"/models/{name}/versions/{version}",
            "report": f"/reports/fid?model={reference}" if has_report else None,
            "report_page": f"/models/{name}/versions/{version}/report" if has_report else None,
        },
    )
