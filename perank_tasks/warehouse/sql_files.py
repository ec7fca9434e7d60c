"""Where the SQL files are: `sql/` of the source tree, a folder of the package once installed."""

from pathlib import Path

from perank_tasks.errors import ConfigError


def sql_folder() -> Path:
    """The folder of SQL files: in the installed package, else beside it in the source tree."""
    package = Path(__file__).parent.parent
    for folder in (package / "sql", package.parent / "sql"):
        if (folder / "schema").is_dir():
            return folder
    raise ConfigError(
        f"The SQL files are neither in {package / 'sql'} nor in {package.parent / 'sql'}; "
        "the installation is damaged. Install perank again."
    )
