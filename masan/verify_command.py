"""`masan verify`: whether files are what a MASAN service made."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from masan.connection import AsJson, print_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from masan.verify import Findings

NOT_AUTHENTIC_EXIT_CODE = 1
_AUTHENTIC = frozenset({"exact", "pixels", "close"})
_MAX_CERTIFICATE_BYTES = 256 * 2**20


def verify(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|ARCHIVE|FOLDER",
            help="An archive of a job or the folder it was unpacked to, its certificate, or one image.",
        ),
    ],
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="FILE|BASE64",
            show_default=False,
            help="The public key that must have signed; see GET /certificates/key.",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="URL",
            show_default=False,
            help="Draw an image again there and compare; of a job: take the key from there.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", envvar="MASAN_API_KEY", show_default=False, help="The server's API key."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check files of a job, without a network: every digest, and who signed for them."""
    if key and server:
        raise typer.BadParameter("give --key or --server, not both")
    if not path.exists():
        raise typer.BadParameter(f"{path}: there is no such file or folder")
    findings = _check(path, key, server, api_key)
    if as_json:
        facts, problems = findings.facts, findings.problems
        print_json({"authentic": findings.is_authentic, "facts": facts, "problems": problems})
        raise typer.Exit(0 if findings.is_authentic else NOT_AUTHENTIC_EXIT_CODE)
    for fact in findings.facts:
        typer.echo(fact)
    for problem in findings.shown_problems():
        typer.echo(f"masan: {path}: {problem}", err=True)
    if not findings.is_authentic:
        raise typer.Exit(NOT_AUTHENTIC_EXIT_CODE)


def _check(path: Path, key: str | None, server: str | None, api_key: str | None) -> "Findings":
    from masan.sealed_files import is_archive, is_table
    from masan.verify import check_certificate, check_job, media_type_of

    if path.is_dir() or is_archive(path) or is_table(path):
        return check_job(path, _trusted(key, server, api_key))
    with path.open("rb") as file:
        content = file.read(_MAX_CERTIFICATE_BYTES)
    media_type = media_type_of(content)
    if media_type is not None:
        return _check_image(content, media_type, key, server, api_key)
    if content.lstrip().startswith(b"{"):
        return check_certificate(content, _trusted(key, server, api_key))
    raise typer.BadParameter(
        f"{path}: neither an archive (zip, tar, npz, parquet) nor an image nor a certificate"
    )


def _check_image(
    content: bytes, media_type: str, key: str | None, server: str | None, api_key: str | None
) -> "Findings":
    from masan.verify import MAX_IMAGE_BYTES, check_image

    if key is not None:
        raise typer.BadParameter("--key: an image is not signed by itself; give its archive, or --server")
    if len(content) > MAX_IMAGE_BYTES:
        raise typer.BadParameter(f"the image has more than {MAX_IMAGE_BYTES} bytes; none of ours has")
    findings = check_image(content)
    if not findings.is_authentic:
        return findings
    if server is None:
        findings.facts.append("nothing here proves that; --server URL draws it again and compares")
        return findings
    from masan.client import Client

    with Client(server, api_key) as client:
        body = client.verify(content, media_type)
    if body["verdict"] in _AUTHENTIC:
        findings.facts.append(f"{server} drew it again: {body['verdict']}, {body['detail']}")
    else:
        findings.problems.append(f"{body['verdict']}: {body['detail']}")
    return findings


def _trusted(key: str | None, server: str | None, api_key: str | None) -> "Ed25519PublicKey | None":
    from model_store.certificate import parse_public_key

    if server is not None:
        from masan.client import Client

        with Client(server, api_key) as client:
            return parse_public_key(client.certificate_key())
    if key is None:
        return None
    try:
        file = Path(key)
        return parse_public_key(file.read_text(encoding="ascii") if file.is_file() else key)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--key {key}: {error}") from error
