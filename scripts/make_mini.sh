#!/usr/bin/env bash
# Makes the embedded policy from nothing: demonstrations, an unpruned policy, its mistakes labelled by the
# expert (DAgger), the pruned policy, its bundle and how it does. About two hours on two cores.
#   scripts/make_mini.sh DIRECTORY
# A step whose result is there is not done again; an interrupted training goes on.
set -euo pipefail
out=$(realpath -m "${1:?usage: scripts/make_mini.sh DIRECTORY}")
mkdir -p "$out"
lightvla() { "$(dirname "${BASH_SOURCE[0]}")/run.sh" lightvla "$@"; }
# Compiled training is half as fast again.
options=(--threads 2 --report-every 250)
if command -v c++ >/dev/null; then options+=(--compile); fi

collect() { # directory, options: all episodes or nothing
    [[ -d $out/$1 ]] && return
    rm -rf "$out/$1.part"
    lightvla collect --out "$out/$1.part" "${@:2}"
    mv "$out/$1.part" "$out/$1"
}
train() { # directory, checkpoint it ends with, options
    [[ -e $out/$1/done ]] && return
    if [[ -e $out/$1/state.pt ]]; then
        lightvla train --resume "$out/$1"
    else
        rm -rf "${out:?}/$1"
        lightvla train --out "$out/$1" "${options[@]}" "${@:3}"
    fi
    lightvla export "$out/$1/$2" --out "$out/$1/bundle" --force
    touch "$out/$1/done"
}

collect demos --episodes 1000 --seed 1000
train first unpruned "$out/demos" --unpruned-steps 5000 --pruned-steps 0
collect dagger1 --policy "$out/first/bundle" --episodes 400 --seed 10000
train second unpruned "$out"/{demos,dagger1} --start "$out/first/unpruned" \
    --unpruned-steps 3000 --pruned-steps 0 --learning-rate 5e-4
collect dagger2 --policy "$out/second/bundle" --episodes 400 --seed 20000
train third pruned "$out"/{demos,dagger1,dagger2} --start "$out/second/unpruned" \
    --unpruned-steps 2500 --pruned-steps 2500 --learning-rate 5e-4
lightvla eval --engine "$out/third/bundle" --episodes 200 --seed 900000 --workers 2 --out "$out/evaluation.json"
