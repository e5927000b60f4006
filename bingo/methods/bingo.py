"""BINGO (Xu et al., ICLR 2022): anchor and bag member are pulled to the teacher's embedding of the anchor."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from bingo.study.method import Distillation, DistillationHead, Step, View
from bingo.study.sections import setting_error

if TYPE_CHECKING:
    from torch import Tensor

Term = Literal["intra", "inter", "cutmix"]


class Bingo(Distillation):
    """BINGO: the anchor and a member of its bag are pulled to the teacher's embedding of the anchor."""

    method: Literal["bingo"]
    """Name of the method."""
    objective: Literal["paper", "official"] = "paper"
    """`paper`: intra + inter. `official`, as the authors' released code: symmetric pairs, a third term on CutMix
    images, and no inter pairs in the first epochs."""
    terms: list[Term] | None = Field(default=None, min_length=1)
    """Terms of the loss, for ablations: `intra`, `inter`, and for `official` `cutmix`; null for all of them."""
    inter_free_epochs: int | None = Field(default=None, ge=0)
    """`official`: epochs at the start that have no inter pairs; null for the authors' 11."""
    bags: str
    """Entry of `bags` from which positives are drawn."""
    head: DistillationHead = DistillationHead()
    """Its projection head."""
    temperature: float = Field(default=0.2, gt=0)
    """Softmax temperature; the paper's EfficientNet-B0 has 0.12."""

    @model_validator(mode="after")
    def _terms_fit(self) -> Self:
        terms = self.active_terms()
        if len(set(terms)) < len(terms):
            raise setting_error("terms: a term is repeated")
        if self.objective == "paper":
            if "cutmix" in terms:
                raise setting_error("terms: cutmix belongs to the objective official")
            if self.inter_free_epochs is not None:
                raise setting_error("inter_free_epochs: belongs to the objective official")
        elif terms == ["inter"] and self.inter_start() > 0:
            raise setting_error(
                "terms: with inter alone, inter_free_epochs must be 0, else there is no loss at the start"
            )
        elif "inter" in terms and self.inter_start() >= self.training.epochs:
            free, epochs = self.inter_start(), self.training.epochs
            message = f"inter_free_epochs: {free} leave no inter pairs in {epochs} epochs; set it below {epochs}"
            raise setting_error(f"{message}, or set terms")
        return self

    def named_bags(self) -> str:
        """Return the entry of `bags` that the study names for it."""
        return self.bags

    def loss_name(self) -> str:
        """Return method and objective, and the terms where they are chosen."""
        return " ".join([self.method, self.objective, *(["+".join(self.terms)] if self.terms else [])])

    def whole_loss(self) -> bool:
        """Return whether no terms are chosen."""
        return self.terms is None

    def active_terms(self) -> list[Term]:
        """Return the terms of the loss."""
        if self.terms is not None:
            return self.terms
        return ["intra", "inter"] if self.objective == "paper" else ["intra", "inter", "cutmix"]

    def inter_start(self) -> int:
        """Return the first epoch, from 0, whose loss has inter pairs in the objective `official`."""
        return 11 if self.inter_free_epochs is None else self.inter_free_epochs

    def views(self) -> dict[str, View]:
        """Return the student's views of anchor and member, and the teacher's of the anchor; `official`: of both."""
        views = {
            "anchor": View("anchor", 0),
            "positive": View("positive", 1),
            "anchor_target": View("anchor", 0, teacher=True, student=False),
            "positive_target": View("positive", 0, teacher=True, student=False),
        }
        if self.objective == "paper":
            students = {"intra": "anchor", "inter": "positive"}
            wanted = {students[term] for term in self.active_terms() if term != "cutmix"} | {"anchor_target"}
            return {name: view for name, view in views.items() if name in wanted}
        return views

    def head_widths(self, features: int, teacher: int) -> list[int]:
        """Return hidden and output width."""
        return [self.head.hidden or features, teacher]

    def loss(self, step: Step) -> "dict[str, Tensor]":
        """Return the loss of the objective, and its terms; the teacher's outputs of the anchors join the queue."""
        return self._paper(step) if self.objective == "paper" else self._official(step)

    def _paper(self, step: Step) -> "dict[str, Tensor]":
        r""":math:`L_{intra} + L_{inter} = CE(s(t_1 x_a), T(t_2 x_a)) + CE(s(t_3 x_p), T(t_2 x_a))`."""
        from bingo.losses.info_nce import info_nce, queue_logsumexp

        target = step.teacher("anchor_target")  # (B, D)
        terms = {}
        for term, name in (("intra", "anchor"), ("inter", "positive")):
            if term in self.active_terms():
                query = step.student(step.images[name])  # (B, D)
                negatives = queue_logsumexp(query, step.queue("negatives"), self.temperature)  # (B,)
                terms[term] = info_nce(query, target, negatives, self.temperature)
        step.enqueue("negatives", target)
        return {"loss": sum(terms.values()), **terms}  # type: ignore[dict-item]

    def _official(self, step: Step) -> "dict[str, Tensor]":
        r"""The released code's loss (haohang96/bingo), with m = CutMix(x_a, x_p) and lambda the area left of x_a.

        .. math:: \tfrac13 [ \tfrac12 (CE(s_a, t_a) + CE(s_p, t_p) + CE(s_a, t_p) + CE(s_p, t_a))
            + \lambda CE(s_m, t_a) + (1 - \lambda) CE(s_m, t_p) ]

        In the first epochs, or without inter, the pairs are CE(s_a, t_a) + CE(s_p, t_p) alone. CutMix images stay out
        of the student's batch-norm statistics, unlike there.
        """
        from bingo.losses.info_nce import info_nce, queue_logsumexp
        from bingo.views.cutmix import cutmix, draw_box

        active = self.active_terms()
        inter_starts = step.epoch >= self.inter_start()
        kinds = [kind for kind in ("intra", "inter") if kind in active and (kind == "intra" or inter_starts)]
        anchor, positive = step.images["anchor"], step.images["positive"]
        targets = {"anchor": step.teacher("anchor_target"), "positive": step.teacher("positive_target")}  # (B, D)
        queue = step.queue("negatives")

        def contrast(images: "Tensor", track_statistics: bool) -> "dict[str, Tensor]":
            """CE of a student's view against both targets, which share its negatives."""
            query = step.student(images, track_statistics)  # (B, D)
            negatives = queue_logsumexp(query, queue, self.temperature)  # (B,)
            return {name: info_nce(query, key, negatives, self.temperature) for name, key in targets.items()}

        terms: dict[str, Tensor] = {}
        if kinds:
            a, p = contrast(anchor, True), contrast(positive, True)
            pairs = {"intra": a["anchor"] + p["positive"], "inter": a["positive"] + p["anchor"]}
            terms |= {kind: pairs[kind] / len(kinds) for kind in kinds}
        if "cutmix" in active:
            box = draw_box(step.seed, step.epoch, step.step, anchor.shape[-1])
            mixed = contrast(cutmix(anchor, positive, box), False)
            terms["cutmix"] = box.share * mixed["anchor"] + (1 - box.share) * mixed["positive"]
        step.enqueue("negatives", targets["anchor"])
        return {"loss": sum(terms.values()) / 3, **terms}  # type: ignore[dict-item]
