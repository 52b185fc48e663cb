import { call } from "./engine.js";
import { known, wire } from "./options.js";
import type { PlanDetails, PlanOptions } from "./recovery-types.js";

/**
 * What the wasm gives of a plan: for people, and whole, so that its digest holds.
 *
 * @internal
 */
export interface Planned {
  readonly plan: PlanDetails;
  readonly kept: string;
}

/**
 * What a restore would do, to be shown and confirmed. It is sealed: what is restored is exactly this. `JSON.stringify` keeps it,
 * {@link RestorePlan.from} brings it back.
 */
export interface RestorePlan extends PlanDetails {}

export class RestorePlan {
  readonly #kept: string;

  private constructor({ plan, kept }: Planned) {
    Object.assign(this, plan);
    this.#kept = kept;
  }

  /** @internal */
  static _of(planned: Planned): RestorePlan {
    return new RestorePlan(planned);
  }

  /** A plan that was kept as JSON. Rejects with a {@link RecoveryError} (`not_the_plan`) if anything of it was changed. */
  static async from(kept: unknown): Promise<RestorePlan> {
    const text = typeof kept === "string" ? kept : JSON.stringify(kept);
    return new RestorePlan((await call(async (wasm) => wasm.readPlan(text))) as Planned);
  }

  /** @internal */
  get _kept(): string {
    return this.#kept;
  }

  /** The plan in its wire form. */
  toJSON(): unknown {
    return JSON.parse(this.#kept);
  }
}

/**
 * A wish for a plan, as JSON.
 *
 * @internal
 */
export function request(runId: string, options: PlanOptions): string {
  known("a plan", options, ["strategy", "optimizer", "checkOptimizer", "stepBack", "exclude", "observed"]);
  return wire({ ...options, runId });
}
