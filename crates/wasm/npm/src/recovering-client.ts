import type { Client, Recovering, Training } from "#wasm";
import { ConfigError } from "./errors.js";
import { Handle, type SharedHandle } from "./handle.js";
import { type CallOptions, known, wire } from "./options.js";
import { values } from "./stream.js";
import { type Parts, TrainingClient } from "./training-client.js";

/** When a recovering client saves a checkpoint by itself. Each rule counts by itself; without any, none is saved. */
export interface CheckpointPolicy {
  /** After so many steps of the optimizer. */
  readonly everySteps?: number | undefined;
  /** After the first step of the optimizer for which so many seconds have passed. */
  readonly everySeconds?: number | undefined;
  /** After a step before which a metric was better than ever: its name, such as `loss:sum`, and which values are better. */
  readonly onImprovement?:
    | {
        /** The metric's name. */
        readonly metric: string;
        /** Which values are better: low ones, or high ones. */
        readonly mode: "min" | "max";
      }
    | undefined;
  /** When the training ends, which is told by {@link RecoveringTrainingClient.finish}. */
  readonly atEnd?: boolean | undefined;
  /** Which of the checkpoints that these rules have saved are kept; absent = all. */
  readonly keep?: RetentionRule | undefined;
}

/**
 * Which checkpoints are kept: what any of the members keeps. The others are deleted once the log stands on a newer one. What the log stands on
 * stays in any case, and what the program has saved itself.
 */
export interface RetentionRule {
  /** The newest so many. */
  readonly last?: number | undefined;
  /** The best so many, by the metric of `onImprovement`. One without it is kept. */
  readonly best?: number | undefined;
  /** One of every so many, from the oldest on. */
  readonly every?: number | undefined;
}

/** A checkpoint that was saved by the policy, and whether a rule keeps it. */
export interface Fate {
  /** Its path. */
  readonly path: string;
  /** Its bytes, where the service says so. */
  readonly bytes?: number;
  /** Whether it goes. */
  readonly goes: boolean;
  /** What needs it, as a sentence, where it stays whatever the rule says. */
  readonly needed?: string;
}

/** @internal */
export const rule = (keep: RetentionRule): RetentionRule => known("keep", keep, ["last", "best", "every"]);

/** How a run is kept that recovers by itself. */
export interface RedoOptions {
  /** When checkpoints are saved. */
  readonly checkpoints?: CheckpointPolicy | undefined;
  /** By which part of itself a sum of what is done again may differ from what was recorded, e.g. 1e-4; absent = nothing may. */
  readonly tolerance?: number | undefined;
  /** Bytes of requests that are kept; 256 MiB. A third of it has a checkpoint saved, and where it is full operations wait. */
  readonly boundBytes?: number | undefined;
  /**
   * A name under which the log is kept in the browser's own storage (IndexedDB, of the page's origin): a page that is opened again with
   * the same name goes on behind the last step, in a run that is made anew first if it was lost meanwhile. Absent = in memory, as long as the
   * page lives. One page at a time has a log open. A browser may drop what an origin has stored when it runs out of room, unless the
   * page has asked for `navigator.storage.persist()`.
   */
  readonly log?: string | undefined;
  /** Called with each event but `saved` and `deleted`: losses, recoveries, and what else goes wrong; absent = they are warnings on the console. */
  readonly notice?: ((event: RedoEvent) => void) | undefined;
}

/** A step's number. */
function whole(step: number): number {
  if (!Number.isSafeInteger(step) || step < 0) throw new ConfigError(`a step is a whole number from 0 on, not ${step}`);
  return step;
}

const warn = (event: RedoEvent) => console.warn(`retinker: ${event.message}`);

/** Has it called for as long as the run is kept. */
async function notify(redo: Recovering, notice: (event: RedoEvent) => void): Promise<void> {
  const events = redo.events();
  for await (const event of values<RedoEvent>(() => events)) {
    if (event.type !== "saved" && event.type !== "deleted") notice(event);
  }
}

/** Something that happened to a run that recovers by itself. */
export interface RedoEvent {
  /** What happened. */
  readonly type:
    | "lost"
    | "waiting"
    | "stepped_back"
    | "replaying"
    | "recovered"
    | "saved"
    | "not_saved"
    | "deleted"
    | "not_deleted"
    | "not_recorded"
    | "stopped"
    | (string & {});
  /** The same for people. */
  readonly message: string;
  /** The run that it is about: the lost one, or the new one. */
  readonly runId?: string;
  /** The run whose place the new one has taken. */
  readonly from?: string;
  /** The checkpoint. */
  readonly path?: string;
  /** Steps of the optimizer in it, or in all. */
  readonly step?: number;
  /** Requests that are sent again. */
  readonly requests?: number;
  /** Steps of the optimizer among them. */
  readonly steps?: number;
  /** How long it took. */
  readonly seconds?: number;
  /** Why. */
  readonly why?: string;
}

/** Where a program that was started again goes on. */
export interface Resumed {
  /** The steps of the optimizer that were taken. */
  readonly step: number;
  /** What the program gave with the last of them; see {@link RecoveringTrainingClient.setCursor}. */
  readonly cursor?: Uint8Array;
}

/** What going back to a step takes. */
export interface ReplayPlan {
  /** The run whose log it is. */
  readonly runId: string;
  /** The checkpoint that the new run is made from; absent = from the beginning. */
  readonly path?: string;
  /** Steps of the optimizer that are in it. */
  readonly fromStep: number;
  /** Steps of the optimizer that are in the new run. */
  readonly toStep: number;
  /** Requests that are sent again. */
  readonly requests: number;
  /** Tokens of text in them. */
  readonly tokens: number;
  /** How long it was from the first of them to the last when they were called. */
  readonly seconds: number;
}

/**
 * Trains a run, and makes it anew when it loses its state: from the last checkpoint, with what was done since done again, and held
 * against what it came to before. The training loop does not see it; {@link recoveries} tells. What was done since the last checkpoint
 * is kept in memory, or in the browser's own storage. Made by {@link ServiceClient.createRecoveringTrainingClient}.
 */
export class RecoveringTrainingClient extends TrainingClient {
  readonly #redo: Handle<Recovering>;

  private constructor(client: SharedHandle<Client>, redo: Recovering) {
    const beside = Handle.of(redo);
    super({ client, training: Handle.of(redo.training()), beside } satisfies Parts);
    this.#redo = beside;
  }

  /** @internal */
  static _recovering(
    client: SharedHandle<Client>,
    redo: Recovering,
    notice: (event: RedoEvent) => void = warn,
  ): RecoveringTrainingClient {
    notify(redo, notice).catch((error: unknown) => console.error("retinker: a notice failed", error));
    return new RecoveringTrainingClient(client, redo);
  }

  /** Where to go on, if the log had a run already. */
  get resumed(): Resumed | undefined {
    return this.#redo.ask((redo) => {
      const step = redo.resumedStep();
      const cursor = redo.resumedCursor();
      return step === undefined ? undefined : { step, ...(cursor && { cursor }) };
    });
  }

  /**
   * Gives the next step of the optimizer a cursor: what the program needs to go on after that step, such as its place in the data
   * and the state of its chance. It is stored with the step, and never read.
   */
  setCursor(cursor: Uint8Array): void {
    this.#redo.ask((redo) => redo.setCursor(cursor));
  }

  /** What happens to the run from now on: losses and recoveries, and checkpoints that were saved. */
  recoveries(options: CallOptions = {}): AsyncIterableIterator<RedoEvent> {
    const { signal } = known("recoveries", options, ["signal"]);
    const redo = this.#redo.now;
    return values<RedoEvent>(() => redo.events(), { signal });
  }

  /** The steps of the optimizer that can be gone back to. */
  async window(options: CallOptions = {}): Promise<{
    /** The first one; 0 = the beginning. */
    readonly firstStep: number;
    /** The last one. */
    readonly lastStep: number;
  }> {
    const { signal } = known("window", options, ["signal"]);
    return this.#redo.call((redo) => redo.window(signal));
  }

  /**
   * The end of the training, once the result of its last step is there: saves a checkpoint if the rule `atEnd` says so and steps were
   * taken since the newest one. Gives the newest one's path; absent = there is none.
   */
  async finish(options: CallOptions = {}): Promise<string | undefined> {
    const { signal } = known("finish", options, ["signal"]);
    return (await this.#redo.call<string | null>((redo) => redo.finish(signal))) ?? undefined;
  }

  /** What a rule would keep of the checkpoints that were saved by the policy: nothing is deleted here. */
  async planRetention(keep: RetentionRule, options: CallOptions = {}): Promise<Fate[]> {
    const { signal } = known("planRetention", options, ["signal"]);
    return this.#redo.call((redo) => redo.planRetention(wire(rule(keep)), signal));
  }

  /** What {@link recoverTo} would do. */
  async planTo(step: number, options: CallOptions = {}): Promise<ReplayPlan> {
    const { signal } = known("planTo", options, ["signal"]);
    return this.#redo.call((redo) => redo.planTo(whole(step), signal));
  }

  /** Makes a new run that is as this one was after its `step`-th step of the optimizer, 0 for the beginning. This one stays as it is. */
  async recoverTo(step: number, options: CallOptions = {}): Promise<TrainingClient> {
    const { signal } = known("recoverTo", options, ["signal"]);
    return TrainingClient._of(this._client, await this.#redo.call<Training>((redo) => redo.recoverTo(whole(step), signal)));
  }
}
