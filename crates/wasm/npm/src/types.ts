/** What services tell, as this package shows it. Members that a service does not tell are absent. */

/** Labels: texts by name. */
export type UserMetadata = Readonly<Record<string, string>>;

/** Whose things are asked for: the caller's own, or all that the caller may see. */
export type AccessScope = "owned" | "accessible";

/** What a checkpoint holds: `training` can be gone on from, `sampler` sampled from, `external` downloaded for use elsewhere. */
export type CheckpointType = "training" | "sampler" | "external" | (string & {});

/** One saved state of a run. */
export interface Checkpoint {
  /** `<segment>/<name>`, such as `weights/0001`. */
  readonly checkpointId: string;
  /** What it can be used for. */
  readonly checkpointType: CheckpointType;
  /** When it was saved. */
  readonly time: Date;
  /** Its address, `tinker://<run>/<segment>/<name>`. */
  readonly tinkerPath: string;
  /** Bytes on the server's disk. */
  readonly sizeBytes?: number;
  /** Whether others may load it. */
  readonly public: boolean;
  /** Labels given at the save. */
  readonly userMetadata?: UserMetadata;
  /** When the server will delete it; absent = never. */
  readonly expiresAt?: Date;
}

/** One training run. */
export interface TrainingRun {
  /** Its id, which is also the model id that training requests carry. */
  readonly trainingRunId: string;
  /** The base model that the adapter is trained on. */
  readonly baseModel: string;
  /** Who owns it. */
  readonly modelOwner: string;
  /** Whether it trains a LoRA adapter. */
  readonly isLora: boolean;
  /** Whether the server says that a failure has poisoned the run. Absent where it does not say. */
  readonly corrupted?: boolean;
  /** Why, in the server's words. Of the embedded service only. */
  readonly corruptedReason?: string;
  /** The adapter's rank. */
  readonly loraRank?: number;
  /** When the run was last asked for anything. */
  readonly lastRequestTime: Date;
  /** The newest training checkpoint. */
  readonly lastCheckpoint?: Checkpoint;
  /** The newest sampler checkpoint. */
  readonly lastSamplerCheckpoint?: Checkpoint;
  /** Labels given when the run was made. */
  readonly userMetadata?: UserMetadata;
}

/** Where a page stands in a list. */
export interface Cursor {
  /** How many entries come before this page. */
  readonly offset: number;
  /** How many entries were asked for. */
  readonly limit: number;
  /** How many entries there are in all. */
  readonly totalCount: number;
}

/** One page of runs. */
export interface TrainingRunsPage {
  /** The runs of this page. */
  readonly trainingRuns: readonly TrainingRun[];
  /** Where the page stands. */
  readonly cursor: Cursor;
}

/** One page of checkpoints. */
export interface CheckpointsPage {
  /** The checkpoints of this page. */
  readonly checkpoints: readonly Checkpoint[];
  /** Where the page stands; absent where the list is whole. */
  readonly cursor?: Cursor;
}

/** A base model that a server offers. */
export interface SupportedModel {
  /** Its name. */
  readonly modelName?: string;
  /** The longest sequence that it takes, in tokens. */
  readonly maxContextLength?: number;
  /** Whether adapters can be trained on it; absent = not said. */
  readonly trainable?: boolean;
  /** Whether it can be sampled from; absent = not said. */
  readonly sampleable?: boolean;
}

/** What a server offers. */
export interface ServerCapabilities {
  /** The base models. */
  readonly supportedModels: readonly SupportedModel[];
}

/** Which optimizer a run is trained with, tagged by `type`. */
export type OptimizerConfig =
  | {
      /** AdamW, the default. */
      readonly type: "adamw";
    }
  | {
      /** Dimuon. */
      readonly type: "dimuon";
      /** Which version of it, such as 1. */
      readonly version: number;
    }
  | {
      /** Another, by its name. */
      readonly type: string;
      /** Its settings, under the names that the service has for them. */
      readonly [setting: string]: unknown;
    };

/** What a checkpoint fits. */
export interface WeightsInfo {
  /** The base model that it was trained on. */
  readonly baseModel: string;
  /** Whether it is an adapter. */
  readonly isLora: boolean;
  /** The adapter's rank; absent = not said. */
  readonly loraRank?: number;
  /** Whether the unembedding is trained; absent = not said. */
  readonly trainUnembed?: boolean;
  /** Whether the MLP is trained; absent = not said. */
  readonly trainMlp?: boolean;
  /** Whether the attention is trained; absent = not said. */
  readonly trainAttn?: boolean;
  /** Its optimizer; absent = not said. */
  readonly optimizerConfig?: OptimizerConfig;
}

/** What a run is made of. */
export interface ModelInfo {
  /** The run. */
  readonly modelId: string;
  /** What it is made of; what the server does not say is absent. */
  readonly modelData: {
    /** The architecture's name. */
    readonly arch?: string;
    /** The base model's name. */
    readonly modelName?: string;
    /** The tokenizer: a Hugging Face id, or a local directory. */
    readonly tokenizerId?: string;
  };
  /** Its optimizer; absent = not said. */
  readonly optimizerConfig?: OptimizerConfig;
  /** Whether it trains an adapter; absent = not said. */
  readonly isLora?: boolean;
  /** The adapter's rank; absent = not said. */
  readonly loraRank?: number;
  /** The base model's name again, where older clients read it. */
  readonly modelName?: string;
}

/** Where the files of an external checkpoint can be had. The addresses are secrets: whoever has one can read the file. */
export interface ExternalWeights {
  /** Addresses by the files' names. */
  readonly urls: Readonly<Record<string, string>>;
  /** Until when. */
  readonly expires: Date;
}

/** A session, by its id. */
export interface Session {
  /** The runs made in the session, by id. */
  readonly trainingRunIds: readonly string[];
  /** The samplers made in it, by id. */
  readonly samplerIds: readonly string[];
  /** Its labels. */
  readonly userMetadata?: UserMetadata;
  /** Its name for people; absent = it has none. */
  readonly displayName?: string;
}

/** How a client ended its session: it did what it wanted (`success`), met an error, or was stopped from outside (`interrupted`). */
export type FinishReason = "success" | "errored" | "interrupted";

/** How a session stands. */
export type SessionStatus =
  | {
      /** Its client lives. */
      readonly type: "active";
    }
  | {
      /** It was ended from outside, or its client went silent. */
      readonly type: "cancelled";
      /** A sentence for people, where there is one. */
      readonly detail?: string;
    }
  | {
      /** Its client ended it. */
      readonly type: "client_finished";
      /** How. */
      readonly reason: {
        /** How the session ended. */
        readonly type: FinishReason | (string & {});
      };
      /** A sentence for people, where there is one. */
      readonly detail?: string;
    }
  | {
      /** Something in it failed for good. */
      readonly type: "failed";
      /** Whose fault it was. */
      readonly category: "user" | "internal" | (string & {});
      /** What happened. */
      readonly message: string;
      /** What failed, tagged by `type`: `request`, `training_run` or `sampling_session`. */
      readonly reason: unknown;
    }
  | {
      /** A status that this version does not know. */
      readonly type: "unknown";
    };

/** A session as a search finds it. */
export interface SessionSummary {
  /** The session. */
  readonly sessionId: string;
  /** When it was made. */
  readonly createdAt: Date;
  /** Whose it is. */
  readonly owner: string;
  /** Its project. */
  readonly projectId: string;
  /** How it stands; absent where the server cannot say. */
  readonly status?: SessionStatus;
  /** How many checkpoints its runs have. */
  readonly checkpointsCount: number;
  /** How many bytes they take; absent = not said. */
  readonly checkpointStorageBytes?: number;
  /** Its name for people; absent = it has none. */
  readonly displayName?: string;
  /** Its labels. */
  readonly userMetadata?: UserMetadata;
}

/** What a sampler samples from. */
export interface Sampler {
  /** The sampler. */
  readonly samplerId: string;
  /** The base model that its weights belong to. */
  readonly baseModel: string;
  /** The checkpoint that it was made from, if it was. */
  readonly modelPath?: string;
}

/** Who a credential belongs to. */
export interface Whoami {
  /** The principal's URN. */
  readonly userUrn: string;
  /** The URN of the organization that the credential acts in. */
  readonly orgUrn: string;
  /** The user's address, if the principal is a user. */
  readonly email?: string;
}

/** Which events of the audit log are asked for. */
export type AuditEventType = "all" | "checkpoints" | "projects" | "teams" | "organizations" | (string & {});

/** An entry of the audit log. */
export interface AuditLogEntry {
  /** When it happened. */
  readonly timestamp: Date;
  /** `<resource>_<action>`, such as `checkpoint_read`. */
  readonly event: string;
  /** Who did it, what it was about, and what else the event records. */
  readonly eventDetails: Readonly<Record<string, unknown>>;
}

/** What kind of usage an event is, and how much. */
export type BillingEventInfo =
  | {
      /** Tokens of forward and backward passes. */
      readonly type: "training";
      /** How many. */
      readonly tokenCount: number;
    }
  | {
      /** Tokens of prompts. */
      readonly type: "sampling_prefill";
      /** Whether they were in a cache, which is cheaper. */
      readonly cached: boolean;
      /** How many. */
      readonly tokenCount: number;
    }
  | {
      /** Sampled tokens. */
      readonly type: "sampling_sample";
      /** How many. */
      readonly tokenCount: number;
    }
  | {
      /** Operations on checkpoints. */
      readonly type: "checkpoint";
      /** How many. */
      readonly count: number;
    }
  | {
      /** Storage of checkpoints. */
      readonly type: "storage";
      /** Whether it costs nothing. */
      readonly free: boolean;
      /** Gigabytes times hours. */
      readonly gigabyteHours: number;
    }
  | {
      /** A kind that this version does not know. */
      readonly type: "unknown";
    };

/** Usage of one hour. */
export interface BillingUsageEvent {
  /** When the hour begins. */
  readonly bucketStart: Date;
  /** When it ends. */
  readonly bucketEnd: Date;
  /** The base model, where it is known. */
  readonly baseModel?: string;
  /** Whose session it was: a URN. */
  readonly userId?: string;
  /** The same by name. */
  readonly userName?: string;
  /** The session. */
  readonly sessionId?: string;
  /** The session's project. */
  readonly projectId?: string;
  /** Estimated cost in US dollars before credits; not an amount due. Absent where it cannot be said. */
  readonly estimatedCostUsd?: number;
  /** The rate behind it, of tokens, in US dollars for a million. */
  readonly effectiveRateUsdPerMillionTokens?: number;
  /** The rate behind it, of storage, in US dollars for a gigabyte and month; a month is 720 hours. */
  readonly effectiveRateUsdPerGigabyteMonth?: number;
  /** What was used. */
  readonly eventInfo: BillingEventInfo;
}

/** Usage by the hour. */
export interface BillingUsage {
  /** Usage by the hour. */
  readonly data: readonly BillingUsageEvent[];
  /** The sessions in it, by id. */
  readonly sessions: Readonly<Record<string, {
    /** The session's labels; absent = it has none. */
    readonly userMetadata?: UserMetadata;
  }>>;
  /** Up to when costs come from invoices; after that from published rates. */
  readonly costDataThrough?: Date;
}

/** What checkpoints of one owner take in one project. */
export interface CheckpointStorage {
  /** The project of their session. */
  readonly projectId?: string;
  /** The owner's URN. */
  readonly orgUserUrn?: string;
  /** The owner's address. */
  readonly userEmail?: string;
  /** The owner's name. */
  readonly userName?: string;
  /** How many there are. */
  readonly checkpointCount: number;
  /** Their bytes. */
  readonly sizeBytes: number;
  /** The same in the unit of billing. */
  readonly sizeGigabytes: number;
  /** What 720 hours of it would cost in US dollars, at the present rate; absent where it cannot be said. */
  readonly estimatedMonthlyCostUsd?: number;
}

/** What checkpoints take now; an hour or two old. */
export interface CheckpointStorageUsage {
  /** The present rate, in US dollars for a gigabyte and 720 hours; absent = not said. */
  readonly effectiveRateUsdPerGigabyteMonth?: number;
  /** By project and owner. */
  readonly data: readonly CheckpointStorage[];
}

/** What a training program needs to go on with a run that it did not make. */
export interface Attachment {
  /** The session to keep alive. */
  readonly sessionId: string;
  /** The run. */
  readonly modelId: string;
  /** The number of the next training request. */
  readonly nextSeqId: number;
}
