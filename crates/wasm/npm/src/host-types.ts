/** What a host tells. */
import type { Health, RestoreRecord, Verdict } from "./recovery-types.js";
import type { Attachment, Checkpoint, TrainingRun, UserMetadata } from "./types.js";

/** What went wrong, to which thing, and what to do about it. */
export interface Problem {
  /** A stable name, such as `service_unreachable`. */
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

/** What kind of service stands behind a host: the embedded one, or another. */
export type ServiceKind = "local" | "remote" | (string & {});

/** How a host is. */
export interface HostStatus {
  readonly version: string;
  readonly service: {
    readonly name: string;
    readonly kind: ServiceKind;
    readonly baseUrl: string;
    readonly baseModels: readonly string[];
    /** Why it cannot be read now. */
    readonly problem?: Problem;
  };
  /** When all runs were last read; absent = never yet. */
  readonly asOf?: Date;
  readonly runs: number;
  /** The host's clock. */
  readonly now: Date;
  readonly demo?: {
    readonly running: boolean;
    readonly stepsDone: number;
    readonly stepsTotal: number;
    readonly message: string;
  };
}

/** A service that a host can stand before. */
export interface ConnectionInfo {
  readonly name: string;
  readonly title: string;
  readonly kind: ServiceKind;
  readonly baseUrl: string;
  readonly hasKey: boolean;
  /** Where its key is to be put: the name of a variable, never a key. */
  readonly keyFrom: string;
  /** Whether the host looks after it: false until somebody asks for it. */
  readonly asked: boolean;
  readonly asOf?: Date;
  readonly problem?: Problem;
}

/** A run in a list. */
export interface RunRow {
  readonly run: TrainingRun;
  /** Its name for people. */
  readonly name: string;
  readonly verdict: Verdict;
  /** The run that it replaces. */
  readonly restoredFrom?: string;
  /** The run that replaces it. */
  readonly restoredTo?: string;
  /** A restore of it that is under way. */
  readonly restoreId?: string;
}

/** Which runs are shown, and in what order. */
export interface RunsQuery {
  readonly health?: Health | undefined;
  /** Words, and what is compared with fields: `health:poisoned model:qwen rank>=16 age<2d meta.team=x`. */
  readonly q?: string | undefined;
  /** `health`: worst first. */
  readonly sort?: "health" | "activity" | "name" | "model" | "rank" | "saved" | "expires" | undefined;
  /** The other way round. */
  readonly reverse?: boolean | undefined;
  readonly offset?: number | undefined;
  /** 100, at most 1000. */
  readonly limit?: number | undefined;
}

/** A part of the list of runs. */
export interface RunWindow {
  readonly rows: readonly RunRow[];
  /** How many runs match. */
  readonly matching: number;
  /** How many runs there are. */
  readonly total: number;
  /** Of all runs that match the text, by health. */
  readonly counts: Readonly<Record<"poisoned" | "unrecoverable" | "stalled" | "atRisk" | "recovered" | "healthy", number>>;
  /** When the list was last read from the service. */
  readonly asOf?: Date;
  /** Why it could not be read again since. */
  readonly problem?: Problem;
}

/** Ready-made code. */
export interface Snippet {
  readonly language: string;
  readonly title: string;
  readonly code: string;
}

/** Everything about one run. */
export interface RunDetail {
  readonly row: RunRow;
  /** What it can be restored from, newest first. */
  readonly checkpoints: readonly { readonly checkpoint: Checkpoint; readonly unusableBecause?: string }[];
  readonly checkpointsProblem?: Problem;
  /** All runs of its family, parents before their children. */
  readonly lineage: readonly {
    readonly runId: string;
    readonly generation: number;
    readonly restoreId?: string;
    readonly parent?: string;
    readonly checkpoint?: string;
    readonly name: string;
    readonly health?: Health;
  }[];
  /** The restore that made this run. */
  readonly restoredBy?: RestoreRecord;
  readonly takenOverAt?: Date;
  /** The latest restore of this run. */
  readonly restore?: RestoreRecord;
  /** Why it offers no restore. */
  readonly noRestoreBecause?: string;
  readonly ownMetadata: UserMetadata;
  /** Code that goes on with this run. */
  readonly snippets: readonly Snippet[];
}

/** Runs that were poisoned within a short time of each other. */
export interface Incident {
  readonly service: string;
  readonly first: Date;
  readonly last: Date;
  readonly runIds: readonly string[];
  /** The reason that the most of them share. */
  readonly reason?: Shared<string>;
  readonly category: Shared<"server" | "user" | "unknown">;
  readonly recoverable: number;
  readonly unrecoverable: number;
}

/** What the most runs of an incident have in common. */
export interface Shared<T> {
  readonly value: T;
  readonly count: number;
}

/** Something that was done, other than a restore. */
export interface Act {
  readonly at: Date;
  readonly by: string;
  readonly what: string;
  readonly subjects: readonly string[];
  readonly count: number;
  readonly endedAt?: Date;
  /** What was not done of it, and why. */
  readonly problem?: string;
}

/** Whether restores begin by themselves. */
export interface MonitorState {
  readonly gate: "open" | "paused" | "draining" | (string & {});
  readonly policy: {
    readonly enabled: boolean;
    readonly maxAttempts: number;
    readonly maxRestoresPerHour: number;
  };
}

/** What people, consoles and monitors did. */
export interface Activity {
  readonly monitor: MonitorState;
  readonly incidents: readonly Incident[];
  readonly restores: readonly RestoreRecord[];
  readonly acts: readonly Act[];
  readonly actsTotal: number;
}

/** What the taker of a restored run needs. */
export interface HandOver {
  readonly attachment: Attachment;
  readonly baseUrl: string;
  readonly snippets: readonly Snippet[];
  /** Until when the host keeps the session alive beside the taker. */
  readonly heartbeatsUntil: Date;
}

/** Something changed. */
export type HostEvent =
  /** Runs changed, came or went: which, when they are few; none named = many. */
  | { readonly type: "runs"; readonly runIds: readonly string[] }
  /** A restore went on. */
  | { readonly type: "restore"; readonly restore: RestoreRecord }
  /** The host's own state changed. */
  | { readonly type: "status"; readonly status: HostStatus };
