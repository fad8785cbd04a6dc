"""The peers in PyTorch: timm and Hugging Face's transformers, as their users run them."""

import time
from pathlib import Path
from typing import Any

from cases import CLASSES, GATE_ROWS, LEARNING_RATE, MEAN, STD, WEIGHT_DECAY, Case, random_batch


class Torch:
    """Eager, or by torch.compile with `options`'s `compile`, a mode of it.

    Fused AdamW, fused attention (SDPA); in bfloat16 training is under autocast, and inference has
    its parameters converted.
    """

    def __init__(self, case: Case, options: dict[str, Any]):
        import torch

        if unknown := set(options) - {"compile"}:
            raise SystemExit(f"unknown options {unknown}; allowed: compile.")
        self.case, self.torch = case, torch
        self.device = torch.device("cuda" if case.device == "gpu" else "cpu")
        torch.set_num_threads(case.cores)
        if case.device == "gpu":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        self.low = torch.bfloat16 if case.dtype == "bfloat16" else torch.float32
        self.model = self.build().to(self.device)
        image, label = random_batch(case)
        self.image = torch.from_numpy(image).permute(0, 3, 1, 2).contiguous().to(self.device)
        self.label = torch.from_numpy(label).to(self.device)
        mode = options.get("compile")
        train = case.work == "train"
        begin = time.perf_counter()
        self.function = self._loss if train else self._forward
        if mode is not None:
            self.function = torch.compile(self.function, mode=mode)
        if train:
            self.model.train()
            self.optimizer = torch.optim.AdamW(
                self.model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
            )
        else:
            self.model.eval().to(self.low)
        self.begin, self.compile_seconds = begin, None

    def build(self):
        raise NotImplementedError

    def logits(self, image):
        return self.model(image)

    def _normalise(self, image):
        return (image.float() - 255 * MEAN) / (255 * STD)

    def _forward(self, image):
        return self.logits(self._normalise(image).to(self.low))

    def _loss(self, image, label):
        # Autocast chooses what is bfloat16; the loss is in float32.
        logits = self.logits(self._normalise(image))
        return self.torch.nn.functional.cross_entropy(logits.float(), label)

    def _run(self):
        torch = self.torch
        if self.case.work != "train":
            with torch.inference_mode():
                self.result = self.function(self.image)
            return
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, self.low, enabled=self.low is torch.bfloat16):
            self.result = self.function(self.image, self.label)
        self.result.backward()
        self.optimizer.step()

    def gate(self, steps: int) -> dict[str, Any]:
        if self.case.work != "train":
            self.run(1)
            self.compile_seconds = time.perf_counter() - self.begin
            found = dict(logits=self.result[:GATE_ROWS].float().cpu().tolist())
        else:
            losses = []
            for _ in range(steps):
                self.run(1)
                self.compile_seconds = self.compile_seconds or time.perf_counter() - self.begin
                losses.append(self.result.item())
            found = dict(losses=losses)
        if self.case.device == "gpu":
            self.torch.cuda.reset_peak_memory_stats()
        return found

    def run(self, steps: int):
        for _ in range(steps):
            self._run()
        if self.case.device == "gpu":
            self.torch.cuda.synchronize()

    def memory(self) -> float | None:
        return self.torch.cuda.max_memory_allocated() if self.case.device == "gpu" else None

    def about(self) -> dict[str, Any]:
        """`compile` holds the first call, too, which is what is waited for."""
        is_gpu = self.case.device == "gpu"
        name = self.torch.cuda.get_device_name() if is_gpu else "cpu"
        return dict(device=name, compile=self.compile_seconds)


class Timm(Torch):
    """timm's VisionTransformer."""

    def build(self):
        _torchvision()
        import timm
        from safetensors.torch import load_file

        model = timm.create_model(
            self.case.architecture, img_size=self.case.image_size, num_classes=CLASSES
        )
        model.load_state_dict(load_file(Path(self.case.weights) / "timm" / "model.safetensors"))
        is_gpu = self.case.device == "gpu"
        return model.to(memory_format=self.torch.channels_last) if is_gpu else model


class HuggingFace(Torch):
    """transformers' ViTForImageClassification with SDPA."""

    def build(self):
        _torchvision()
        from transformers import ViTForImageClassification

        return ViTForImageClassification.from_pretrained(
            Path(self.case.weights) / "huggingface", attn_implementation="sdpa"
        )

    def logits(self, image):
        return self.model(image).logits


def _torchvision():
    """Lets timm and transformers import a torchvision that was built for another torch."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        from references import load_torchvision  # of tests/

        load_torchvision()
    except ImportError:
        pass
