#!/usr/bin/env bash
# Makes a virtual environment that runs this checkout, with the given extras of setup.py:
#   scripts/setup.sh .venv ros,sim
# Starts from a bare Debian or Ubuntu and asks nothing, so that it also runs in CI.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/ros.sh

venv=$1
extras=$2
supported="import sys; assert (3, 10) <= sys.version_info[:2] <= (3, 13)"

say() { echo "setup: $*" >&2; }

die() {
    say "$*"
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_install() {
    command -v apt-get >/dev/null || die "missing system packages; Debian calls them: $*"
    as_root true 2>/dev/null || die "missing system packages. Run: sudo apt-get install -y $*"
    say "installing $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$@" </dev/null
}

has_library() { PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep -F "$1" >/dev/null; }

has_package() { dpkg -s "$1" >/dev/null 2>&1; }

# MuJoCo renders through EGL; without a GPU, Mesa's drivers draw on the CPU.
install_rendering() {
    local missing=()
    has_library libEGL.so.1 || missing+=(libegl1)
    has_library libOpenGL.so.0 || missing+=(libopengl0)
    has_library libEGL_nvidia.so.0 || has_package libgl1-mesa-dri || missing+=(libgl1-mesa-dri)
    [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

# What Qt draws with, on a screen or without one; a machine without a font would show boxes.
install_qt() {
    local missing=() name
    for name in libEGL.so.1:libegl1 libGL.so.1:libgl1 libgthread-2.0.so.0:libglib2.0-0 \
        libxkbcommon.so.0:libxkbcommon0 libdbus-1.so.3:libdbus-1-3 libfontconfig.so.1:libfontconfig1; do
        has_library "${name%%:*}" || missing+=("${name#*:}")
    done
    compgen -G "/usr/share/fonts/truetype/*/*.ttf" >/dev/null || missing+=(fonts-dejavu-core)
    [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

# The distribution's own Python first: a ROS 2 that is installed was built for it.
find_python() {
    local candidate
    for candidate in python3 python3.12 python3.11 python3.13 python3.10; do
        if "$candidate" -c "$supported; import ensurepip, venv" >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    local python
    if ! python=$(find_python); then
        apt_install python3 python3-venv
        python=$(find_python) || die "no Python 3.10 to 3.13 found. Install one with its venv module"
    fi
    say "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
    # Some of the pips that come with Python 3.10 take hours to resolve the requirements.
    "$venv/bin/python" -m pip install --quiet --no-input --upgrade pip
}

# A torch that is already there was chosen for this machine: it stays.
write_constraints() {
    if "$venv/bin/python" -c "import torch" 2>/dev/null; then
        grep -v "^torch==" requirements/constraints.txt
    else
        cat requirements/constraints.txt
    fi >"$venv/constraints.txt"
}

pip_install() {
    # setuptools warns at length about any editable install.
    PYTHONWARNINGS=ignore "$venv/bin/python" -m pip install --quiet --no-input \
        --constraint "$venv/constraints.txt" "$@"
}

# A ROS 2 that was set up in this shell is used if this Python can, else the wheels of PyPI.
choose_ros() {
    # rclpy wants these two, which a machine's own ROS 2 takes from the system's Python.
    [ -z "${ROS_DISTRO:-}" ] || pip_install numpy pyyaml
    if has_system_ros "$venv/bin/python"; then
        say "using ROS 2 $ROS_DISTRO of this machine"
        extras=${extras#ros,}
    elif [ "$(uname -m)" != x86_64 ]; then
        die "PyPI has ROS 2 for x86-64 only. Run first: source /opt/ros/<distribution>/setup.bash"
    else
        hide_system_ros
    fi
}

case ",$extras," in *,sim,* | *,libero,*) install_rendering ;; esac
case ",$extras," in *,view,*) install_qt ;; esac
"$venv/bin/python" -c "$supported; import pip" >/dev/null 2>&1 || make_venv
write_constraints
choose_ros
say "installing lightvla_ros[$extras]"
pip_install --editable ".[$extras]"
