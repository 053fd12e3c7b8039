#!/usr/bin/env bash
# Makes sure that debian:trixie-slim, which the builder image and the sample start from, is on the engine: pulls it,
# else bootstraps it from a Debian mirror.
#
#   base-image.sh [HOST]    default: the engine of CAISSON_DOCKER_HOST
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

HOST=${1:-$ENGINE_HOST}
is_there() { image_id "$HOST" "$BASE_IMAGE" >/dev/null; }

is_there && exit 0
begin base-image
is_there && exit 0

# Asks for the manifest first: without a way to the registry that fails in seconds, a pull may hang for minutes.
if engine_get "$HOST" "/distribution/$BASE_IMAGE/json" 10 >/dev/null &&
    logged docker_on "$HOST" pull "$BASE_IMAGE"; then
    say "Pulled $BASE_IMAGE"
    exit 0
fi
say "$BASE_IMAGE can't be pulled here: bootstrapping it from a Debian mirror"
archive=$STATE/setup/base-image.tar
trap 'ended $?; rm -f "$archive"' EXIT
bootstrap "$archive"
logged docker_on "$HOST" import --change 'CMD ["bash"]' --message 'bootstrapped by Caisson' "$archive" "$BASE_IMAGE"
