#!/usr/bin/env bash
# Stops what this project started and removes the environment and caches; says what it leaves.
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

CACHES=(.mypy_cache .ruff_cache .pytest_cache .import_linter_cache .grimp_cache .hypothesis build caisson.egg-info)

# Builders are named as their label says; a label alone can come from an image.
remove_builders() {
    local containers
    engine_answers "$ENGINE_HOST" || return 0
    mapfile -t containers < <(docker_on "$ENGINE_HOST" ps --all --filter label=caisson.build \
        --format '{{.ID}} {{.Names}} caisson-build-{{.Label "caisson.build"}}' | awk '$2 == $3 { print $1 }')
    ((${#containers[@]})) || return 0
    say "Removing ${#containers[@]} builder container(s)"
    logged docker_on "$ENGINE_HOST" rm --force --volumes "${containers[@]}"
}

begin clean
if [[ -x $VENV/bin/caisson ]]; then
    say "Stopping Caisson"
    # No Caisson to stop, or an environment that doesn't work any more: neither keeps the rest from going.
    logged "$VENV/bin/caisson" down || true
fi
remove_builders
if compgen -G '/run/netns/caisson-test*' >/dev/null; then
    say "Stopping the test engines"
    "$ROOT/deployments/setup/test-engine.sh" stop
fi
say "Removing .venv and caches"
cd "$ROOT" || exit
rm -rf "$VENV" "${CACHES[@]}"
find . -name __pycache__ -type d -prune -exec rm -rf {} +
say "Left: the Docker engine with its images, packages from apt, and Caisson's state in $STATE"
if [[ -d ${CAISSON_TEST_DIR:-/var/lib/caisson-test} ]]; then
    say "Left: the test engines, stopped, which deployments/setup/test-engine.sh purge removes"
fi
