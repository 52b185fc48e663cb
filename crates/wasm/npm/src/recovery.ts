import type { Recovery as RawRecovery } from "#wasm";
import { Connected } from "./connected.js";
import { connection } from "./connection.js";
import { RecoveryError } from "./errors.js";
import { Handle } from "./handle.js";
import { read } from "./json.js";
import { type CallOptions, type ClientOptions, known } from "./options.js";
import { RestorePlan, request } from "./plan.js";
import type { Checkup, Health, OptimizerState, PlanOptions, RestoreRecord, Restored, Verification } from "./recovery-types.js";

/** A restore. */
export interface RestoreOptions extends CallOptions {
  /** Called with the restore's record after each step. */
  readonly onProgress?: ((record: RestoreRecord) => void) | undefined;
}

/**
 * Finds runs that have lost their state, and restores them, without a host. Its journal is in memory: where restores have to
 * outlive this program, ask a host by {@link HostClient}.
 */
export class Recovery extends Connected {
  readonly #recovery: Handle<RawRecovery>;

  /**
   * Over a service, or over that of another client.
   *
   * @param onBehalfOf Whom restores are begun for: the labels of nobody, but the restore's record tells it.
   */
  constructor(
    of: ClientOptions | Connected = {},
    options: {
      /** Whom restores are begun for, as their records tell it; `a program`. */
      readonly onBehalfOf?: string | undefined;
    } = {},
  ) {
    const { onBehalfOf = "a program" } = known("a recovery", options, ["onBehalfOf"]);
    const client = connection(of);
    const recovery = new Handle((wasm) => new wasm.Recovery(client.of(wasm), onBehalfOf));
    super(client, recovery);
    this.#recovery = recovery;
  }

  /** How a run is: by what the service says of it, its checkpoints and its session. */
  async health(runId: string, options: CallOptions = {}): Promise<Checkup> {
    const { signal } = known("health", options, ["signal"]);
    return this.#recovery.call((recovery) => recovery.check(runId, signal));
  }

  /** How all of the caller's runs are, in the service's order; of some health only, where one is said. */
  async survey(
    options: CallOptions & {
      /** Only runs of this health; absent = all. */
      readonly health?: Health | undefined;
    } = {},
  ): Promise<Checkup[]> {
    const { health, signal } = known("survey", options, ["health", "signal"]);
    const all = await this.#recovery.call<Checkup[]>((recovery) => recovery.checkAll(signal));
    return health === undefined ? all : all.filter(({ verdict }) => verdict.health === health);
  }

  /**
   * What a restore would do. Changes nothing.
   *
   * Rejects with a {@link RecoveryError} where there is nothing to restore from (`no_checkpoint`, `no_usable_checkpoint`), or
   * nothing to restore (`not_poisoned`, `already_restored`).
   */
  async plan(runId: string, { signal, ...options }: CallOptions & PlanOptions = {}): Promise<RestorePlan> {
    const wanted = request(runId, options);
    return RestorePlan._of(await this.#recovery.text((recovery) => recovery.plan(wanted, signal)));
  }

  /**
   * Carries a plan out: opens a session, loads the checkpoint into a new run, compares it with what was saved. The new run waits
   * then to be taken over, by `TrainingClient.attach(restored.attachment)`. The old run is not touched.
   *
   * A signal cancels the restore, as long as the new run is not adopted.
   */
  async restore(plan: RestorePlan, options: RestoreOptions = {}): Promise<Restored> {
    const { onProgress, signal } = known("restore", options, ["onProgress", "signal"]);
    signal?.throwIfAborted();
    let id: string | undefined;
    const cancel = () => {
      if (id !== undefined) this.#recovery.call((recovery) => recovery.cancel(id as string)).catch(() => {});
    };
    const told = (text: string) => {
      const record = read<RestoreRecord>(text);
      id = record.id;
      if (signal?.aborted) cancel();
      onProgress?.(record);
    };
    signal?.addEventListener("abort", cancel);
    try {
      const record = await this.#recovery.call<RestoreRecord>((recovery) => recovery.restore(plan._kept, told, signal));
      if (record.state === "cancelled") signal?.throwIfAborted();
      return await this.#taken(record);
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  async #taken(record: RestoreRecord): Promise<Restored> {
    const { newRunId, attachment, verification, optimizerState } = record;
    if (record.state === "failed" || record.state === "cancelled" || newRunId === undefined || attachment === undefined) {
      throw new RecoveryError(record.error ?? `restore ${record.id} is ${record.state}`, {
        code: record.state,
        category: "unknown",
        restoreId: record.id,
      });
    }
    return {
      newRunId,
      attachment,
      ...(verification && { verification }),
      ...(optimizerState && { optimizerState }),
      record: await this.#recovery.call<RestoreRecord>((recovery) => recovery.handOver(record.id)),
    };
  }

  /** Whether a checkpoint brings back what was saved with it, found out on throw-away copies of it. */
  async verify(
    runId: string, tinkerPath: string,
    options: CallOptions = {},
  ): Promise<{
    /** Whether the weights are those that were saved. */
    readonly weights: Verification;
    /** Whether the optimizer's state comes with them. */
    readonly optimizer: OptimizerState;
  }> {
    const { signal } = known("verify", options, ["signal"]);
    return this.#recovery.call((recovery) => recovery.verify(runId, tinkerPath, signal));
  }
}
