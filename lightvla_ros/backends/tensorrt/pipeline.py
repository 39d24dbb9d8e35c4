"""The four parts of a bundle on one device, linked by the memory they share."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from lightvla_ros.backends.manifest import PARTS, Manifest
from lightvla_ros.backends.tensorrt.buffers import Buffers, allocate, check_tensors
from lightvla_ros.backends.tensorrt.cuda import Device
from lightvla_ros.backends.tensorrt.plan import PlanSet
from lightvla_ros.backends.tensorrt.stage import Copy, Lengths, Plan, PlanRuntime, Stage
from lightvla_ros.core.errors import BundleError, EngineError, LightVlaError


class Pipeline:
    """Plans, memory and graphs of an engine; every graph is captured here.

    Args:
        manifest: of the bundle.
        plan_set: its plans, already checked.
        runtime: what loads them.
        device: where they run; the caller closes it after the pipeline.
        rebuild: command that builds the plans again, for messages.

    Attributes:
        stages: part name -> how to run it.
        host: page-locked arrays by tensor name, for what crosses to the host.
        addresses: device memory by tensor name.
        sizes: bytes of it.
        dtypes: of the tensors.
        upload: tensor name -> copy of its host array to the device.

    Raises:
        BundleError: a plan cannot be loaded or is not what the manifest says.
        EngineError: the device fails or has too little memory.
    """

    def __init__(
        self, manifest: Manifest, plan_set: PlanSet, runtime: PlanRuntime, *, device: Device, rebuild: str
    ) -> None:
        self._manifest, self._device, self._rebuild = manifest, device, rebuild
        self._plans: dict[str, Plan] = {}
        self.stages: dict[str, Stage] = {}
        try:
            self._load(plan_set, runtime)
            buffers = allocate(device, self._plans, manifest)
            self.host, self.addresses, self.sizes = buffers.host, buffers.addresses, buffers.sizes
            self.dtypes = {
                name: tensor.dtype for plan in self._plans.values() for name, tensor in plan.tensors.items()
            }
            self.upload = {
                name: partial(device.upload, buffers.addresses[name], array)
                for name, array in buffers.host.items()
            }
            self.stages = self._linked_stages(buffers)
            self._capture()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free contexts and plans once nothing uses them any more."""
        with suppress(EngineError):  # a broken device cannot be waited for
            self._device.synchronize()
        for stage in self.stages.values():
            stage.close()
        for plan in self._plans.values():
            plan.close()
        self.stages.clear()
        self._plans.clear()

    def pruner_lengths(self, prompt: int) -> Lengths:
        """Return the sizes of the pruner's dynamic inputs: none where learned queries read no prompt."""
        return (prompt,) if self._pruner_reads_prompt else ()

    @property
    def _pruner_reads_prompt(self) -> bool:
        return "prompt_keys" in self._plans["pruner"].tensors

    def _load(self, plan_set: PlanSet, runtime: PlanRuntime) -> None:
        for part in PARTS:
            path = plan_set.directory / plan_set.parts[part].file
            try:
                self._plans[part] = runtime.load(path, self._device)
                check_tensors(part, self._plans[part], self._manifest)
            except LightVlaError as e:
                fix = f"run `{self._rebuild}` on this machine"
                raise BundleError(e.what, got=e.got, expected=e.expected, fix=fix) from e

    def _linked_stages(self, buffers: Buffers) -> dict[str, Stage]:
        """Return the parts with the copies that belong to each of their runs."""
        device, up = self._device, self.upload
        down: Mapping[str, Copy] = {
            name: partial(device.download, array, buffers.addresses[name])
            for name, array in buffers.host.items()
        }
        # What lies behind a prompt is hidden by a mask, but 0 x NaN is NaN.
        clear = [
            partial(device.zero, buffers.addresses[name], buffers.sizes[name])
            for name in ("prompt_tokens", "prompt_keys")
        ]
        stage = partial(Stage, device=device, addresses=buffers.addresses, workspace=buffers.workspace)
        return {
            "prompt": stage(
                "prompt",
                self._plans["prompt"],
                dynamic=["input_ids"],
                before=[*clear, up["input_ids"], up["prompt_length"]],
            ),
            "vision": stage("vision", self._plans["vision"], before=[up["pixel_values"]]),
            "pruner": stage(
                "pruner",
                self._plans["pruner"],
                dynamic=["prompt_keys"] if self._pruner_reads_prompt else [],
                before=[up["proprio"]],
                after=[down["order"], down["count"]],
            ),
            "decoder": stage(
                "decoder",
                self._plans["decoder"],
                dynamic=["retained_indices", "prompt_tokens"],
                before=[up["proprio"]],
                after=[down["normalized_actions"]],
            ),
        }

    def _capture(self) -> None:
        """Capture every graph, each part on what the one before it left in the buffers."""
        model, ids = self._manifest.model, self.host["input_ids"]
        ids[0, :2] = model.bos_id, model.stop_id  # the shortest prompt
        self.host["prompt_length"][0] = 1
        self.stages["prompt"].run((2,))
        self.stages["vision"].capture(())
        for lengths in dict.fromkeys(map(self.pruner_lengths, self._manifest.prompt_buckets)):
            self.stages["pruner"].capture(lengths)
        for prompt in self._manifest.prompt_buckets:
            for retained in self._manifest.length_buckets:
                self.stages["decoder"].capture((retained, prompt))
        self._device.synchronize()
