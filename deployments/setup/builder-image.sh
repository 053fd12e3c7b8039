#!/usr/bin/env bash
# Makes sure that the engine has the image of the throw-away builder, as deployments/builder/ describes it now.
#
#   builder-image.sh [HOST [DIRECTORY]]    default: the engine of CAISSON_DOCKER_HOST, deployments/builder
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

HOST=${1:-$ENGINE_HOST}
DIRECTORY=${2:-$ROOT/deployments/builder}
LABEL=caisson.builder.content

# Names, modes and contents, and the base: whatever changes the image changes this.
content() {
    {
        image_id "$HOST" "$BASE_IMAGE"
        tar --create --directory "$DIRECTORY" --exclude __pycache__ --sort=name --mtime=@0 --owner=0 --group=0 \
            --numeric-owner .
    } | sha256sum | cut -d ' ' -f 1
}

is_current() { [[ $(image_label "$HOST" "$BUILDER_IMAGE" "$LABEL" || true) == "$wanted" ]]; }

wanted=$(content)
is_current && exit 0
begin builder-image
is_current && exit 0

say "Building $BUILDER_IMAGE"
previous=$(image_id "$HOST" "$BUILDER_IMAGE" || true)
# The classic builder, for this CLI may have no buildx.
DOCKER_BUILDKIT=0 logged docker_on "$HOST" build --force-rm --build-arg "BASE=$BASE_IMAGE" \
    --label "$LABEL=$wanted" --tag "$BUILDER_IMAGE" "$DIRECTORY"
# Builders that still run keep the image that they were made from.
[[ -z $previous ]] || logged docker_on "$HOST" rmi "$previous" || true
