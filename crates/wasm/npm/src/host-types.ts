/** What a host tells. */
import type { Health, RestoreRecord, Verdict } from "./recovery-types.js";
import type { Attachment, Checkpoint, TrainingRun, UserMetadata } from "./types.js";

/** What went wrong, to which thing, and what to do about it. */
export interface Problem {
  /** A stable name, such as `service_unreachable`. */
  readonly code: string;
  /** What happened, for people. */
  readonly message: string;
  /** What to do, for people; empty when there is nothing to add. */
  readonly hint: string;
}

/** What kind of service stands behind a host: the embedded one, or another. */
export type ServiceKind = "local" | "remote" | (string & {});

/** How a host is. */
export interface HostStatus {
  /** The host's version. */
  readonly version: string;
  /** The service behind it. */
  readonly service: {
    /** Its name for people. */
    readonly name: string;
    /** What kind. */
    readonly kind: ServiceKind;
    /** Where training programs reach it. Without credentials. */
    readonly baseUrl: string;
    /** The names of the base models that it offers; empty until it has answered. */
    readonly baseModels: readonly string[];
    /** Why it cannot be read now; absent while it can. */
    readonly problem?: Problem;
  };
  /** When all runs were last read; absent = never yet. */
  readonly asOf?: Date;
  /** How many runs there are; 0 until they have been read. */
  readonly runs: number;
  /** The host's clock, by which all times of its answers are told. */
  readonly now: Date;
  /** The demonstration, where it was begun. */
  readonly demo?: {
    /** Whether it is still at work. */
    readonly running: boolean;
    /** Training steps done. */
    readonly stepsDone: number;
    /** Training steps in all. */
    readonly stepsTotal: number;
    /** What it is doing, for people. */
    readonly message: string;
  };
}

/** A service that a host can stand before. */
export interface ConnectionInfo {
  /** What callers name it by. */
  readonly name: string;
  /** Its name for people. */
  readonly title: string;
  /** What kind. */
  readonly kind: ServiceKind;
  /** Where training programs reach it. Without credentials. */
  readonly baseUrl: string;
  /** Whether the host has a key for it. */
  readonly hasKey: boolean;
  /** Where its key is to be put: the name of a variable, never a key. Empty where it needs none. */
  readonly keyFrom: string;
  /** Whether the host looks after it: false until somebody asks for it. */
  readonly asked: boolean;
  /** When its runs were last read; absent = never yet. */
  readonly asOf?: Date;
  /** Why it cannot be read now; absent while it can, and before it was asked. */
  readonly problem?: Problem;
}

/** A run in a list. */
export interface RunRow {
  /** The run as the service tells it. */
  readonly run: TrainingRun;
  /** Its name for people: the label `name`, else the id. */
  readonly name: string;
  /** How it is, and why. */
  readonly verdict: Verdict;
  /** The run that it replaces. */
  readonly restoredFrom?: string;
  /** The run that replaces it. */
  readonly restoredTo?: string;
  /** A restore of it that is under way. */
  readonly restoreId?: string;
}

/** Which runs are shown, and in what order. Absent members mean: all, by health, from the first. */
export interface RunsQuery {
  /** Only runs of this health. */
  readonly health?: Health | undefined;
  /** Words, and what is compared with fields: `health:poisoned model:qwen rank>=16 age<2d meta.team=x`. */
  readonly q?: string | undefined;
  /**
   * The order; `health`, worst first. By `activity` and `saved` the newest come first, by `rank` the highest, by `expires` those whose
   * last checkpoint expires soonest.
   */
  readonly sort?: "health" | "activity" | "name" | "model" | "rank" | "saved" | "expires" | undefined;
  /** The other way round; false. */
  readonly reverse?: boolean | undefined;
  /** How many to pass over; 0. */
  readonly offset?: number | undefined;
  /** How many to give; 100, at most 1000. */
  readonly limit?: number | undefined;
}

/** A part of the list of runs. */
export interface RunWindow {
  /** The runs of this part, in order. */
  readonly rows: readonly RunRow[];
  /** How many runs match. */
  readonly matching: number;
  /** How many runs there are. */
  readonly total: number;
  /** Of all runs that match the text, by health. */
  readonly counts: Readonly<Record<"poisoned" | "unrecoverable" | "stalled" | "atRisk" | "recovered" | "healthy", number>>;
  /** When the list was last read from the service; absent = never yet. */
  readonly asOf?: Date;
  /** Why it could not be read again since; the rows are then those of `asOf`. */
  readonly problem?: Problem;
}

/** Ready-made code that goes on with a run. */
export interface Snippet {
  /** `python`, `rust`, `typescript`, `elixir`, or `cookbook` (Python, for the recipes of tinker-cookbook). */
  readonly language: string;
  /** What it does, in a few words. */
  readonly title: string;
  /** The code. */
  readonly code: string;
}

/** Everything about one run. */
export interface RunDetail {
  /** The run as in the list. */
  readonly row: RunRow;
  /** What it can be restored from, newest first. */
  readonly checkpoints: readonly {
    /** The checkpoint. */
    readonly checkpoint: Checkpoint;
    /** Why it cannot be restored from; absent = it can. */
    readonly unusableBecause?: string;
  }[];
  /** Why the checkpoints could not be read; absent where they were. */
  readonly checkpointsProblem?: Problem;
  /** All runs of its family, parents before their children. */
  readonly lineage: readonly {
    /** The run. */
    readonly runId: string;
    /** How many restores lie between the root and it; 0 for the root. */
    readonly generation: number;
    /** The restore that made it; absent for the root. */
    readonly restoreId?: string;
    /** The run that it was restored from; absent for the root. */
    readonly parent?: string;
    /** The path of the checkpoint that it was restored from. */
    readonly checkpoint?: string;
    /** Its name for people. */
    readonly name: string;
    /** How it is; absent: the service does not list it any more. */
    readonly health?: Health;
  }[];
  /** The restore that made this run; absent for one that was not restored. */
  readonly restoredBy?: RestoreRecord;
  /** When a program that has taken this restored run over last asked it for something; absent as long as none has. */
  readonly takenOverAt?: Date;
  /** The latest restore of this run. */
  readonly restore?: RestoreRecord;
  /** Why it offers no restore; absent = it does. */
  readonly noRestoreBecause?: string;
  /** The run's own labels, without those of its lineage. */
  readonly ownMetadata: UserMetadata;
  /** Code that goes on with this run. */
  readonly snippets: readonly Snippet[];
}

/** Runs of one service that were poisoned within a short time of each other; also a single one. */
export interface Incident {
  /** The service. */
  readonly service: string;
  /** When the first run was poisoned. */
  readonly first: Date;
  /** When the last run was poisoned. */
  readonly last: Date;
  /** The runs, in the order in which they were poisoned. */
  readonly runIds: readonly string[];
  /** The reason that the most of them share; absent where none is known. */
  readonly reason?: Shared<string>;
  /** The category that the most of them share: whose fault it was. */
  readonly category: Shared<"server" | "user" | "unknown">;
  /** How many can be restored. */
  readonly recoverable: number;
  /** How many cannot. */
  readonly unrecoverable: number;
}

/** What the most runs of an incident have in common. */
export interface Shared<T> {
  /** What. */
  readonly value: T;
  /** How many runs have it. */
  readonly count: number;
}

/** Something that was done, other than a restore. */
export interface Act {
  /** When it was begun. */
  readonly at: Date;
  /** On whose behalf, such as `the console of ada@box`. */
  readonly by: string;
  /** What was to be done, as an order: `Delete checkpoints`. */
  readonly what: string;
  /** What it was done to: paths of checkpoints, ids of sessions. The first few, where there are many. */
  readonly subjects: readonly string[];
  /** How many those are in all. */
  readonly count: number;
  /** When it was over; absent: it is being done, or whoever did it is gone. */
  readonly endedAt?: Date;
  /** What was not done of it, and why, as a sentence; absent where all was. */
  readonly problem?: string;
}

/** Whether restores begin by themselves. */
export interface MonitorState {
  /**
   * Whether restores may begin by themselves now, in any monitor of the journal: they may (`open`), none begins until somebody resumes
   * (`paused`), or none begins any more (`draining`). Those under way go on.
   */
  readonly gate: "open" | "paused" | "draining" | (string & {});
  /** Which are restored by this host. */
  readonly policy: {
    /** Whether poisoned runs are restored by themselves. */
    readonly enabled: boolean;
    /** How often a run, with those that came from it, is restored at most until one lasts. */
    readonly maxAttempts: number;
    /** How many restores begin in an hour at most. */
    readonly maxRestoresPerHour: number;
  };
}

/** What people, consoles and monitors did: about lost runs, and with the service's things. */
export interface Activity {
  /** Whether restores begin by themselves. */
  readonly monitor: MonitorState;
  /** Which runs failed together, newest first; of each the first 100 runs by name. */
  readonly incidents: readonly Incident[];
  /** How many incidents there are. */
  readonly incidentsTotal: number;
  /** Restores, newest first. */
  readonly restores: readonly RestoreRecord[];
  /** How many restores there are. */
  readonly restoresTotal: number;
  /** What else was done, newest first. */
  readonly acts: readonly Act[];
  /** How many acts there are. */
  readonly actsTotal: number;
}

/** What the taker of a restored run needs. */
export interface HandOver {
  /** The run's identity. */
  readonly attachment: Attachment;
  /** Where the service is. */
  readonly baseUrl: string;
  /** Code that takes it over; once that has been done, code that starts a new run from its newest checkpoint. */
  readonly snippets: readonly Snippet[];
  /** Until when the host keeps the session alive beside the taker. */
  readonly heartbeatsUntil: Date;
}

/** Something changed. */
export type HostEvent =
  /** Runs changed, came or went: which, when they are few; none named = many. */
  | {
      /** What kind of change this is. */
      readonly type: "runs";
      /** Which runs, when they are few; empty = many. */
      readonly runIds: readonly string[];
    }
  /** A restore went on. */
  | {
      /** What kind of change this is. */
      readonly type: "restore";
      /** The restore as it is now. */
      readonly restore: RestoreRecord;
    }
  /** The host's own state changed. */
  | {
      /** What kind of change this is. */
      readonly type: "status";
      /** The host as it is now. */
      readonly status: HostStatus;
    };
