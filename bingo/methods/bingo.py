"""BINGO (Xu et al., ICLR 2022): pull anchor and bag member to the teacher's embedding of the anchor."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from bingo.study.method import Distillation, DistillationHead, Step, View
from bingo.study.sections import setting_error

if TYPE_CHECKING:
    from torch import Tensor

Term = Literal["intra", "inter", "cutmix"]


class Bingo(Distillation):
    """BINGO: pulls the anchor and a member of its bag to the teacher's embedding of the anchor."""

    method: Literal["bingo"]
    """Name of the method."""
    objective: Literal["paper", "official"] = "paper"
    """`paper`: intra + inter. `official`: the loss of the authors' released code, with symmetric pairs, a third term
    on CutMix images, and no inter pairs in the first epochs."""
    terms: list[Term] | None = Field(default=None, min_length=1)
    """Terms of the loss, for ablations: `intra`, `inter` and, for `official`, `cutmix`. Null for all terms."""
    inter_free_epochs: int | None = Field(default=None, ge=0)
    """`official`: number of epochs at the start without inter pairs. Null for the authors' 11."""
    bags: str
    """Entry of `bags` from which positives are drawn."""
    head: DistillationHead = DistillationHead()
    """Projection head of the student."""
    temperature: float = Field(default=0.2, gt=0)
    """Softmax temperature. The paper uses 0.12 for EfficientNet-B0."""

    @model_validator(mode="after")
    def _terms_fit(self) -> Self:
        terms = self.active_terms()
        if len(set(terms)) < len(terms):
            raise setting_error("terms: contains a term twice; list each term once")
        if self.objective == "paper":
            if "cutmix" in terms:
                raise setting_error("terms: cutmix needs the objective official; remove it or change objective")
            if self.inter_free_epochs is not None:
                raise setting_error("inter_free_epochs: needs the objective official; remove it or change objective")
        elif terms == ["inter"] and self.inter_start() > 0:
            raise setting_error(
                "terms: inter alone leaves the first epochs without a loss; set inter_free_epochs to 0 or add a term"
            )
        elif "inter" in terms and self.inter_start() >= self.training.epochs:
            free, epochs = self.inter_start(), self.training.epochs
            message = f"inter_free_epochs: {free} leaves no inter pairs in {epochs} epochs; set it below {epochs}"
            raise setting_error(f"{message}, or set terms")
        return self

    def named_bags(self) -> str:
        """Return the entry of `bags` to use."""
        return self.bags

    def loss_name(self) -> str:
        """Return method, objective and, if set, the terms."""
        return " ".join([self.method, self.objective, *(["+".join(self.terms)] if self.terms else [])])

    def whole_loss(self) -> bool:
        """Return whether the loss has all its terms."""
        return self.terms is None

    def active_terms(self) -> list[Term]:
        """Return the terms of the loss."""
        if self.terms is not None:
            return self.terms
        return ["intra", "inter"] if self.objective == "paper" else ["intra", "inter", "cutmix"]

    def inter_start(self) -> int:
        """Return the first epoch (from 0) with inter pairs, for the objective `official`."""
        return 11 if self.inter_free_epochs is None else self.inter_free_epochs

    def views(self) -> dict[str, View]:
        """Return the student's views of anchor and positive, and the teacher's of the anchor (`official`: of both)."""
        views = {
            "anchor": View("anchor", 0),
            "positive": View("positive", 1),
            "anchor_target": View("anchor", 0, teacher=True, student=False),
            "positive_target": View("positive", 0, teacher=True, student=False),
        }
        if self.objective == "paper":
            query_of = {"intra": "anchor", "inter": "positive"}
            used = {query_of[term] for term in self.active_terms() if term != "cutmix"} | {"anchor_target"}
            return {name: view for name, view in views.items() if name in used}
        return views

    def head_widths(self, features: int, teacher: int) -> list[int]:
        """Return hidden and output width."""
        return [self.head.hidden or features, teacher]

    def loss(self, step: Step) -> "dict[str, Tensor]":
        """Return the loss and its terms, and enqueue the teacher's embeddings of the anchors."""
        return self._paper(step) if self.objective == "paper" else self._official(step)

    def _paper(self, step: Step) -> "dict[str, Tensor]":
        r"""$L_{intra} + L_{inter} = CE(s(t_1 x_a), T(t_2 x_a)) + CE(s(t_3 x_p), T(t_2 x_a))$."""
        from bingo.losses.info_nce import info_nce, queue_logsumexp

        target = step.teacher("anchor_target")  # (B, D)
        terms = {}
        for term, name in (("intra", "anchor"), ("inter", "positive")):
            if term in self.active_terms():
                query = step.student(step.images[name])  # (B, D)
                negatives = queue_logsumexp(query, step.queue("negatives"), self.temperature)  # (B,)
                terms[term] = info_nce(query, target, negatives, self.temperature)
        step.enqueue("negatives", target)
        loss = sum(terms.values())
        return {"loss": loss, **terms}  # type: ignore[dict-item]

    def _official(self, step: Step) -> "dict[str, Tensor]":
        r"""Loss of the released code (haohang96/bingo); m = CutMix(x_a, x_p), lambda = share of m's area from x_a.

        $$
        \tfrac13 [ \tfrac12 (CE(s_a, t_a) + CE(s_p, t_p) + CE(s_a, t_p) + CE(s_p, t_a))
        + \lambda CE(s_m, t_a) + (1 - \lambda) CE(s_m, t_p) ]
        $$

        In the first epochs, or without inter, the pairs are only CE(s_a, t_a) + CE(s_p, t_p). Unlike in the released
        code, CutMix images do not update the student's running batch-norm statistics.
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
            """Return the CE of a student's view against each of the two targets."""
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
        loss = sum(terms.values()) / 3
        return {"loss": loss, **terms}  # type: ignore[dict-item]
