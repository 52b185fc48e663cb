/** What is known of lost runs, and of their restores. */
import type { Attachment, Checkpoint, TrainingRun, UserMetadata } from "./types.js";

/** How a run is. */
export type Health = "healthy" | "at_risk" | "poisoned" | "stalled" | "recovered" | "unrecoverable" | (string & {});

/** How a run is, and why. */
export interface Verdict {
  readonly health: Health;
  /** A sentence for people. */
  readonly reason: string;
  /** Whose fault; absent where nothing failed. */
  readonly category?: "server" | "user" | "unknown" | (string & {});
  /** Since when, as far as is known. */
  readonly since?: Date;
}

/** A run, and how it is. */
export interface Checkup {
  readonly run: TrainingRun;
  readonly verdict: Verdict;
}

/** Which checkpoint to restore from. */
export type Strategy =
  /** The newest that can be used. */
  | { readonly type: "latest_valid" }
  /** This one. */
  | { readonly type: "specific"; readonly path: string }
  /** The one with the best value of a metric, which a label of this name tells. */
  | { readonly type: "best"; readonly metric: string; readonly mode: "min" | "max" };

/** What a training program has seen of its run being lost, where the service does not call it corrupted. */
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
  /** Whether it is found out, on throw-away copies, that the optimizer's state came back; false. */
  readonly checkOptimizer?: boolean | undefined;
  /** How many of the newest checkpoints that can be used are stepped back over; 0. */
  readonly stepBack?: number | undefined;
  /** Checkpoints that are not taken, by their paths. */
  readonly exclude?: readonly string[] | undefined;
  /** What the run's training program has seen, where the service does not call the run corrupted. */
  readonly observed?: Symptom | undefined;
}

/** One thing that was looked at before a plan was offered. */
export interface Check {
  readonly name: string;
  /** `unknown`: the server could not say; `warning`: something to know before going on. */
  readonly outcome: "passed" | "unknown" | "warning" | (string & {});
  readonly detail: string;
}

/** What a plan says. */
export interface PlanDetails {
  /** A digest of all of it: what is restored is exactly what was shown. */
  readonly id: string;
  readonly schema: number;
  readonly runId: string;
  readonly observed?: Symptom;
  readonly madeAt: Date;
  readonly checkpoint: Checkpoint;
  /** Why this checkpoint. */
  readonly why: string;
  readonly optimizer: boolean;
  readonly checkOptimizer?: boolean;
  readonly baseModel: string;
  readonly loraRank?: number;
  /** The first run of the family. */
  readonly rootRunId: string;
  readonly generation: number;
  /** The labels of the new run. */
  readonly userMetadata: UserMetadata;
  /** The work that is lost with the run. */
  readonly lost: { readonly seconds: number; readonly steps?: number; readonly summary: string };
  readonly lastSave?: Date;
  readonly checks: readonly Check[];
  /** The checkpoints that were passed over. */
  readonly rejected?: readonly { readonly tinkerPath: string; readonly reason: string }[];
}

/** How far a restore is. */
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
  /** The largest difference of a log-probability, in nats. */
  | { readonly verdict: "verified"; readonly difference: number }
  | { readonly verdict: "not_verified"; readonly reason: string }
  /** A difference that is absent is no number at all. */
  | { readonly verdict: "different"; readonly difference?: number; readonly tolerance: number };

/** Whether a restored run has its optimizer's state. */
export type OptimizerState =
  | { readonly verdict: "warm"; readonly difference: number; readonly noise: number }
  | { readonly verdict: "cold"; readonly difference: number; readonly noise: number }
  | { readonly verdict: "not_verified"; readonly reason: string };

/** A restore. */
export interface RestoreRecord {
  readonly id: string;
  readonly plan: PlanDetails;
  readonly state: RestoreState;
  /** On whose behalf it was begun. */
  readonly askedBy?: string;
  /** Its story, oldest first. */
  readonly events: readonly { readonly at: Date; readonly state: RestoreState; readonly message: string }[];
  readonly sessionId?: string;
  readonly modelSeqId?: number;
  readonly newRunId?: string;
  /** What a training program needs to take the new run over. */
  readonly attachment?: Attachment;
  readonly lastRequestTime?: Date;
  readonly probeSeqId?: number;
  readonly verification?: Verification;
  readonly optimizerState?: OptimizerState;
  readonly checkpointUseless?: boolean;
  /** Why it failed. */
  readonly error?: string;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** A restored run that waits to be taken over: `TrainingClient.attach(restored.attachment)`. */
export interface Restored {
  readonly newRunId: string;
  readonly attachment: Attachment;
  readonly verification?: Verification;
  readonly optimizerState?: OptimizerState;
  readonly record: RestoreRecord;
}
