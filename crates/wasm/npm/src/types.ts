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
  readonly modelOwner: string;
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
  readonly offset: number;
  readonly limit: number;
  /** How many entries there are in all. */
  readonly totalCount: number;
}

/** One page of runs. */
export interface TrainingRunsPage {
  readonly trainingRuns: readonly TrainingRun[];
  readonly cursor: Cursor;
}

/** One page of checkpoints. */
export interface CheckpointsPage {
  readonly checkpoints: readonly Checkpoint[];
  readonly cursor?: Cursor;
}

/** A base model that a server offers. */
export interface SupportedModel {
  readonly modelName?: string;
  /** The longest sequence that it takes, in tokens. */
  readonly maxContextLength?: number;
  readonly trainable?: boolean;
  readonly sampleable?: boolean;
}

/** What a server offers. */
export interface ServerCapabilities {
  readonly supportedModels: readonly SupportedModel[];
}

/** Which optimizer a run is trained with, tagged by `type`. */
export type OptimizerConfig =
  | { readonly type: "adamw" }
  | { readonly type: "dimuon"; readonly version: number }
  | { readonly type: string; readonly [setting: string]: unknown };

/** What a checkpoint fits. */
export interface WeightsInfo {
  readonly baseModel: string;
  readonly isLora: boolean;
  readonly loraRank?: number;
  readonly trainUnembed?: boolean;
  readonly trainMlp?: boolean;
  readonly trainAttn?: boolean;
  readonly optimizerConfig?: OptimizerConfig;
}

/** What a run is made of. */
export interface ModelInfo {
  readonly modelId: string;
  readonly modelData: { readonly arch?: string; readonly modelName?: string; readonly tokenizerId?: string };
  readonly optimizerConfig?: OptimizerConfig;
  readonly isLora?: boolean;
  readonly loraRank?: number;
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
  readonly trainingRunIds: readonly string[];
  readonly samplerIds: readonly string[];
  readonly userMetadata?: UserMetadata;
  readonly displayName?: string;
}

/** How a client ended its session. */
export type FinishReason = "success" | "errored" | "interrupted";

/** How a session stands. */
export type SessionStatus =
  | { readonly type: "active" }
  | { readonly type: "cancelled"; readonly detail?: string }
  | {
      readonly type: "client_finished";
      readonly reason: { readonly type: FinishReason | (string & {}) };
      readonly detail?: string;
    }
  | {
      readonly type: "failed";
      /** Whose fault it was. */
      readonly category: "user" | "internal" | (string & {});
      readonly message: string;
      readonly reason: unknown;
    }
  | { readonly type: "unknown" };

/** A session as a search finds it. */
export interface SessionSummary {
  readonly sessionId: string;
  readonly createdAt: Date;
  readonly owner: string;
  readonly projectId: string;
  readonly status?: SessionStatus;
  readonly checkpointsCount: number;
  readonly checkpointStorageBytes?: number;
  readonly displayName?: string;
  readonly userMetadata?: UserMetadata;
}

/** What a sampler samples from. */
export interface Sampler {
  readonly samplerId: string;
  readonly baseModel: string;
  /** The checkpoint that it was made from, if it was. */
  readonly modelPath?: string;
}

/** Who a credential belongs to. */
export interface Whoami {
  readonly userUrn: string;
  readonly orgUrn: string;
  readonly email?: string;
}

/** Which events of the audit log are asked for. */
export type AuditEventType = "all" | "checkpoints" | "projects" | "teams" | "organizations" | (string & {});

/** An entry of the audit log. */
export interface AuditLogEntry {
  readonly timestamp: Date;
  /** `<resource>_<action>`, such as `checkpoint_read`. */
  readonly event: string;
  readonly eventDetails: Readonly<Record<string, unknown>>;
}

/** What kind of usage an event is, and how much. */
export type BillingEventInfo =
  | { readonly type: "training"; readonly tokenCount: number }
  | { readonly type: "sampling_prefill"; readonly cached: boolean; readonly tokenCount: number }
  | { readonly type: "sampling_sample"; readonly tokenCount: number }
  | { readonly type: "checkpoint"; readonly count: number }
  | { readonly type: "storage"; readonly free: boolean; readonly gigabyteHours: number }
  | { readonly type: "unknown" };

/** Usage of one hour. */
export interface BillingUsageEvent {
  readonly bucketStart: Date;
  readonly bucketEnd: Date;
  readonly baseModel?: string;
  readonly userId?: string;
  readonly userName?: string;
  readonly sessionId?: string;
  readonly projectId?: string;
  /** Before credits; not an amount due. */
  readonly estimatedCostUsd?: number;
  readonly effectiveRateUsdPerMillionTokens?: number;
  readonly effectiveRateUsdPerGigabyteMonth?: number;
  readonly eventInfo: BillingEventInfo;
}

/** Usage by the hour. */
export interface BillingUsage {
  readonly data: readonly BillingUsageEvent[];
  /** The sessions in it, by id. */
  readonly sessions: Readonly<Record<string, { readonly userMetadata?: UserMetadata }>>;
  /** Up to when costs come from invoices. */
  readonly costDataThrough?: Date;
}

/** What checkpoints of one owner take in one project. */
export interface CheckpointStorage {
  readonly projectId?: string;
  readonly orgUserUrn?: string;
  readonly userEmail?: string;
  readonly userName?: string;
  readonly checkpointCount: number;
  readonly sizeBytes: number;
  readonly sizeGigabytes: number;
  /** What 720 hours of it would cost at the present rate. */
  readonly estimatedMonthlyCostUsd?: number;
}

/** What checkpoints take now. */
export interface CheckpointStorageUsage {
  readonly effectiveRateUsdPerGigabyteMonth?: number;
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
