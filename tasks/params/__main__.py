"""Check `params.yaml` in the current folder, and print each architecture and ensemble in full."""

from tasks.errors import exit_with_message
from tasks.params.whole import load_params


def main() -> None:
    """Check the file, and print its architectures and ensembles."""
    with exit_with_message():
        params = load_params()
    for name, section in (params.architectures | params.ensembles).items():
        print(f"{name}: {section.model_dump_json(indent=2)}")


if __name__ == "__main__":
    main()
