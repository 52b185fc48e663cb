import { call } from "./engine.js";
import { read } from "./json.js";
import { known, wire } from "./options.js";
import type { PlanDetails, PlanOptions } from "./recovery-types.js";

/**
 * What a restore would do, to be shown and confirmed. It is sealed: what is restored is exactly this. `JSON.stringify` keeps it,
 * {@link RestorePlan.from} brings it back.
 */
export interface RestorePlan extends PlanDetails {}

/** Made by `Recovery.plan` and `HostClient.plan`, and brought back by {@link RestorePlan.from}. */
export class RestorePlan {
  readonly #kept: string;

  private constructor(kept: string) {
    Object.assign(this, read<PlanDetails>(kept));
    this.#kept = kept;
  }

  /** @internal */
  static _of(kept: string): RestorePlan {
    return new RestorePlan(kept);
  }

  /** A plan that was kept as JSON. Rejects with a {@link RecoveryError} (`not_the_plan`) if anything of it was changed. */
  static async from(kept: unknown): Promise<RestorePlan> {
    const text = typeof kept === "string" ? kept : JSON.stringify(kept);
    await call(async (wasm) => wasm.checkPlan(text));
    return new RestorePlan(text);
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
