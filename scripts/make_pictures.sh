#!/usr/bin/env bash
# Makes the pictures of docs/looking-inside.md from the shipped policy: the demo, recorded and drawn.
#   scripts/make_pictures.sh [DIRECTORY, default out/pictures]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-out/pictures}
domain=$((1 + $$ % 100))
lightvla() { scripts/run.sh lightvla "$@"; }

rm -rf "$out"
mkdir -p "$out"
scripts/run.sh env ROS_DOMAIN_ID=$domain lightvla record --out "$out/bag" --wait-s 120 &
recorder=$!
trap 'kill $recorder 2>/dev/null || true' EXIT
lightvla demo --headless --episodes 2 --seed 4 --domain-id $domain --out "$out/demo"
kill -TERM $recorder
wait $recorder
lightvla replay "$out/bag"
lightvla render "$out/bag" --out "$out/moments.png"
lightvla render "$out/bag" --out "$out/film.mp4"
lightvla render "$out/bag" --out "$out/film.gif" --width 320 --fps 5
