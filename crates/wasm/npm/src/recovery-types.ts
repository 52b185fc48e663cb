/** What is known of lost runs, and of their restores. */
import type { Attachment, Checkpoint, TrainingRun, UserMetadata } from "./types.js";

/**
 * How a run is: `poisoned` is lost, and there is a checkpoint to restore it from; `unrecoverable` is lost, and there is none;
 * `stalled` has lost its session, and nobody trains it any more; `recovered` was lost, and a restored run has taken its place;
 * `at_risk` has nothing wrong, but a failure now would cost much; `healthy` has nothing wrong as far as can be seen.
 */
export type Health = "healthy" | "at_risk" | "poisoned" | "stalled" | "recovered" | "unrecoverable" | (string & {});

/** How a run is, and why. */
export interface Verdict {
  /** How the run is. */
  readonly health: Health;
  /** Why, as a sentence for people. */
  readonly reason: string;
  /** Whose fault, as far as is known; absent where nothing failed. */
  readonly category?: "server" | "user" | "unknown" | (string & {});
  /** Since when; absent where that is not known. */
  readonly since?: Date;
}

/** A run, and how it is. */
export interface Checkup {
  /** The run. */
  readonly run: TrainingRun;
  /** How it is, and why. */
  readonly verdict: Verdict;
}

/** Which checkpoint to restore from. */
export type Strategy =
  /** The newest that can be used. */
  | {
      /** By what the checkpoint is chosen. */
      readonly type: "latest_valid";
    }
  /** This one. */
  | {
      /** By what the checkpoint is chosen. */
      readonly type: "specific";
      /** Its `tinker://` path. */
      readonly path: string;
    }
  /** The one with the best value of a metric, which a label of this name tells. */
  | {
      /** By what the checkpoint is chosen. */
      readonly type: "best";
      /** The label of the checkpoints that holds it, such as `loss`. One without a finite number there is passed over. */
      readonly metric: string;
      /** Which values are better: low ones, as of a loss, or high ones, as of a reward. Of equal ones the newest is taken. */
      readonly mode: "min" | "max";
    };

/**
 * What a training program has seen of its run being lost, where the service does not call it corrupted:
 *
 * - `not_loaded`: the service does not hold the run's model any more.
 * - `sequence_conflict`: the service counts the run's requests otherwise than the program.
 * - `promise_expired`: the service has forgotten a result that it had promised.
 * - `order_lost`: the order of the run's requests can no longer be known.
 * - `loss_jumped`: after a gap the loss was far above what it had been.
 * - `rolled_back`: a fixed batch gave other log-probabilities than before, though no step was taken.
 * - `session_over`: the session is over, and with it what the run had not saved.
 */
export type Symptom =
  | "not_loaded"
  | "sequence_conflict"
  | "promise_expired"
  | "order_lost"
  | "loss_jumped"
  | "rolled_back"
  | "session_over";

/** What a restore is planned by. */
export interface PlanOptions {
  /** The newest checkpoint that can be used, where nothing is said. */
  readonly strategy?: Strategy | undefined;
  /** Whether the optimizer's state is restored as well; true. */
  readonly optimizer?: boolean | undefined;
  /** Whether it is found out, on throw-away copies, that the optimizer's state came back; false. It takes three more loads. */
  readonly checkOptimizer?: boolean | undefined;
  /** How many of the newest checkpoints that can be used are stepped back over; 0. Refused when none is left. */
  readonly stepBack?: number | undefined;
  /** Checkpoints that are not taken, by their paths. */
  readonly exclude?: readonly string[] | undefined;
  /** What the run's training program has seen, where the service does not call the run corrupted. */
  readonly observed?: Symptom | undefined;
}

/** One thing that was looked at before a plan was offered. */
export interface Check {
  /** What was looked at, such as `the checkpoint loads into this base model`. */
  readonly name: string;
  /** What came out. `unknown`: the server could not say; `warning`: something to know before going on. */
  readonly outcome: "passed" | "unknown" | "warning" | (string & {});
  /** A sentence for people. */
  readonly detail: string;
}

/** What a plan says. */
export interface PlanDetails {
  /** A digest of all of it: what is restored is exactly what was shown. */
  readonly id: string;
  /** The version of the form that the plan is written in. */
  readonly schema: number;
  /** The run that is replaced. */
  readonly runId: string;
  /** What the run's training program has seen of its being lost; absent where it told nothing. */
  readonly observed?: Symptom;
  /** When the plan was made. */
  readonly madeAt: Date;
  /** The checkpoint that is restored from. */
  readonly checkpoint: Checkpoint;
  /** Why this checkpoint. */
  readonly why: string;
  /** Whether the optimizer's state is restored as well. */
  readonly optimizer: boolean;
  /** Whether it is found out, on throw-away copies, that it came back, before the new run is adopted; absent = no. */
  readonly checkOptimizer?: boolean;
  /** The base model. */
  readonly baseModel: string;
  /** The adapter's rank, where known. */
  readonly loraRank?: number;
  /** The first run of the family. */
  readonly rootRunId: string;
  /** How many restores lie between the root and the new run. */
  readonly generation: number;
  /** The labels of the new run: the old run's own, and its lineage under `retinker.`. */
  readonly userMetadata: UserMetadata;
  /** The work that is lost with the run. */
  readonly lost: {
    /** From the checkpoint to the run's last request, in seconds. */
    readonly seconds: number;
    /** Optimizer steps since the checkpoint, where the server counts them. */
    readonly steps?: number;
    /** The same as a sentence. */
    readonly summary: string;
  };
  /** When the run saved its newest training checkpoint of its own, whichever one is restored from; absent where it has none. */
  readonly lastSave?: Date;
  /** What was looked at before the plan was offered. */
  readonly checks: readonly Check[];
  /** The checkpoints that were passed over. */
  readonly rejected?: readonly {
    /** Its path. */
    readonly tinkerPath: string;
    /** Why it was not chosen. */
    readonly reason: string;
  }[];
}

/**
 * How far a restore is:
 *
 * - `planned`: it is in the journal, and nothing has been sent yet.
 * - `opening_session`: a session is being opened for the new run.
 * - `loading`: the new run's weights are being loaded.
 * - `checking`: the weights are loaded, and the new run is being looked at.
 * - `adopted`: the new run is there; its session is kept alive until somebody takes it over.
 * - `handed_over`: somebody has taken the new run over.
 * - `failed`: `error` says why, and the run can be planned for again.
 * - `cancelled`: it was stopped before it was done, and the run can be planned for again.
 */
export type RestoreState =
  | "planned"
  | "opening_session"
  | "loading"
  | "checking"
  | "adopted"
  | "handed_over"
  | "failed"
  | "cancelled"
  | (string & {});

/** Whether a restored run is the one that was saved. */
export type Verification =
  | {
      /** It is the state that was saved. */
      readonly verdict: "verified";
      /** The largest difference of a log-probability, in nats. */
      readonly difference: number;
    }
  | {
      /** It could not be compared. */
      readonly verdict: "not_verified";
      /** Why, as a sentence for people. */
      readonly reason: string;
    }
  | {
      /** It is another state than the one that was saved. */
      readonly verdict: "different";
      /** The largest difference of a log-probability, in nats. One that is absent is no number at all. */
      readonly difference?: number;
      /** What was allowed, in nats. */
      readonly tolerance: number;
    };

/** Whether a restored run has its optimizer's state. */
export type OptimizerState =
  | {
      /** It has: after one step the copies with and without it differ. */
      readonly verdict: "warm";
      /** By so much they differ in a log-probability, in nats, at most. */
      readonly difference: number;
      /** By so much two copies differ that are without it, in nats. */
      readonly noise: number;
    }
  | {
      /** It has not: after one step the copies are alike. So it is as well where no step had been taken before the save. */
      readonly verdict: "cold";
      /** By so much they differ, in nats, which may be chance. */
      readonly difference: number;
      /** By so much two copies differ that are without it, in nats. */
      readonly noise: number;
    }
  | {
      /** It is not known. */
      readonly verdict: "not_verified";
      /** Why, as a sentence for people. */
      readonly reason: string;
    };

/** A restore. */
export interface RestoreRecord {
  /** Its id, also in the new run's labels as `retinker.restore_id`. */
  readonly id: string;
  /** What was confirmed. */
  readonly plan: PlanDetails;
  /** How far it is. */
  readonly state: RestoreState;
  /** On whose behalf it was begun, such as `the monitor of ada@box`, where that is known. */
  readonly askedBy?: string;
  /** Its story, oldest first. */
  readonly events: readonly {
    /** When. */
    readonly at: Date;
    /** The state it led to. */
    readonly state: RestoreState;
    /** What happened, for people. */
    readonly message: string;
  }[];
  /** The new run's session, once chosen. */
  readonly sessionId?: string;
  /** The number of the new run in that session, once chosen. */
  readonly modelSeqId?: number;
  /** The new run; absent until its weights are loaded, and where nothing came of it. */
  readonly newRunId?: string;
  /** What a training program needs to take the new run over; absent as long as there is no new run. */
  readonly attachment?: Attachment;
  /** The new run's last request when it was adopted, by the service's clock: later ones are its taker's. */
  readonly lastRequestTime?: Date;
  /** The number of the request that compares the new run with what was saved, once chosen: it is used up. */
  readonly probeSeqId?: number;
  /** Whether the new run is the one that was saved; absent until it has been looked at. */
  readonly verification?: Verification;
  /** Whether the optimizer's state came back, where the plan has that found out. */
  readonly optimizerState?: OptimizerState;
  /** Whether it failed because of its checkpoint: the service refused it, or it was not what had been saved; absent = no. */
  readonly checkpointUseless?: boolean;
  /** Why it failed, where it did. */
  readonly error?: string;
  /** When it was asked for. */
  readonly createdAt: Date;
  /** When it last changed. */
  readonly updatedAt: Date;
}

/** A restored run that waits to be taken over: `TrainingClient.attach(restored.attachment)`. */
export interface Restored {
  /** The new run. */
  readonly newRunId: string;
  /** What a training program needs to take it over. */
  readonly attachment: Attachment;
  /** Whether it is the run that was saved; absent where it was not looked at. */
  readonly verification?: Verification;
  /** Whether the optimizer's state came back, where the plan has that found out. */
  readonly optimizerState?: OptimizerState;
  /** The record of the restore. */
  readonly record: RestoreRecord;
}
