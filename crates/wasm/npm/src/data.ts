/** What models read and losses give: tokens and tensors, as typed arrays. */
import { ConfigError } from "./errors.js";

/** Token ids. An `Int32Array` is handed on as it is; anything else is copied into one first. */
export type Tokens = Int32Array | readonly number[];

/** A picture, as the bytes of its file. */
export interface ImageChunk {
  /** What kind of piece this is. */
  readonly type: "image";
  /** The bytes of the file. */
  readonly data: Uint8Array;
  /** How it is encoded. */
  readonly format: "png" | "jpeg";
  /** How many tokens it should count as; the server counts itself, and refuses what does not agree. */
  readonly expectedTokens?: number | undefined;
}

/** A picture that the server fetches. For sampling only. */
export interface ImageAssetPointerChunk {
  /** What kind of piece this is. */
  readonly type: "image_asset_pointer";
  /** Its path or address. */
  readonly location: string;
  /** How it is encoded. */
  readonly format: "png" | "jpeg";
  /** How many tokens it should count as; the server counts itself, and refuses what does not agree. */
  readonly expectedTokens?: number | undefined;
}

/** Discretised sound: the bytes of a TensorContainer. */
export interface DmelChunk {
  /** What kind of piece this is. */
  readonly type: "dmel";
  /** The bytes. */
  readonly dmel: Uint8Array;
}

/** A piece of what a model reads. */
export type ModelInputChunk = Tokens | ImageChunk | ImageAssetPointerChunk | DmelChunk;

/** What a model reads: tokens, or pieces of several kinds. */
export type ModelInput =
  | Tokens
  | {
      /** The pieces, in order. */
      readonly chunks: readonly ModelInputChunk[];
    };

/** The values of a tensor. An `Int32Array` is sent as int64; numbers as float32, but for `target_tokens`, which are tokens. */
export type TensorValues = Float32Array | Int32Array | BigInt64Array | readonly number[];

/** A tensor: row by row, of one dimension where no shape is given. */
export interface Tensor {
  /** The values, row by row. */
  readonly data: TensorValues;
  /** The size of each dimension; absent = one dimension. */
  readonly shape?: readonly number[] | undefined;
  /** Of a matrix of which only some cells are given, in compressed rows: where each row's values begin, and where the last one's end. */
  readonly crow?: BigInt64Array | undefined;
  /** Likewise: the column of each value. */
  readonly col?: BigInt64Array | undefined;
}

/** One training example. */
export interface Datum {
  /** What the model reads. */
  readonly modelInput: ModelInput;
  /** What the loss reads, by name: for `cross_entropy` `target_tokens` and `weights`, each as long as the input. */
  readonly lossFnInputs: Readonly<Record<string, TensorValues | Tensor>>;
}

/** A tensor that a service gives. */
export interface TensorData {
  /** The values, row by row; of a sparse one, those that are given. */
  readonly data: Float32Array | BigInt64Array;
  /** The type of its values. */
  readonly dtype: "float32" | "int64";
  /** The size of each dimension; absent = one dimension. */
  readonly shape?: readonly number[];
  /** Of a matrix of which only some cells are given, in compressed rows: where each row's values begin, and where the last one's end. */
  readonly crow?: BigInt64Array;
  /** Likewise: the column of each value. */
  readonly col?: BigInt64Array;
}

/** What a pass over a batch gives. */
export interface ForwardBackwardOutput {
  /** What kind of outputs, by the service's own name of it. */
  readonly lossFnOutputType: string;
  /** One for each example, in order: tensors by name, such as `logprobs`. */
  readonly lossFnOutputs: readonly Readonly<Record<string, TensorData>>[];
  /** Of the whole batch, such as `loss:sum`. */
  readonly metrics: Readonly<Record<string, number>>;
}

/**
 * Examples as the wasm reads them.
 *
 * @internal
 */
export function batch(data: readonly Datum[]): object[] {
  return data.map(({ modelInput, lossFnInputs }) => ({
    chunks: chunks(modelInput),
    tensors: Object.entries(lossFnInputs).map(([name, value]) => tensor(name, value)),
  }));
}

/**
 * What a model reads, as the wasm reads it.
 *
 * @internal
 */
export function chunks(input: ModelInput): object[] {
  if (isTokens(input)) return [tokens(input)];
  if (!Array.isArray(input?.chunks)) throw new ConfigError("a model's input is an array of tokens, or { chunks: [...] }");
  return (input.chunks as readonly ModelInputChunk[]).map((chunk) => {
    if (isTokens(chunk)) return tokens(chunk);
    switch (chunk?.type) {
      case "image":
        return { bytes: chunk.data, format: chunk.format, expectedTokens: chunk.expectedTokens };
      case "image_asset_pointer":
        return { location: chunk.location, format: chunk.format, expectedTokens: chunk.expectedTokens };
      case "dmel":
        return { bytes: chunk.dmel };
      default:
        throw new ConfigError("a piece of a model's input is an array of tokens, or of type image, image_asset_pointer or dmel");
    }
  });
}

function isTokens(input: ModelInput | ModelInputChunk): input is Tokens {
  return input instanceof Int32Array || Array.isArray(input);
}

function tokens(of: Tokens): Int32Array {
  if (of instanceof Int32Array) return of;
  return Int32Array.from(of, (token) => {
    if (!Number.isInteger(token) || token < 0 || token > 0x7fffffff) throw new ConfigError(`${token} is no token id`);
    return token;
  });
}

function tensor(name: string, value: TensorValues | Tensor): object {
  const { data, shape, crow, col } = isValues(value) ? { data: value, shape: undefined, crow: undefined, col: undefined } : value;
  if ((crow === undefined) !== (col === undefined)) throw new ConfigError(`tensor '${name}' has one of crow and col: a sparse one has both`);
  return { name, data: values(name, data), shape: shape && Float64Array.from(shape), crow, col };
}

function isValues(value: TensorValues | Tensor): value is TensorValues {
  return ArrayBuffer.isView(value) || Array.isArray(value);
}

function values(name: string, data: TensorValues): Float32Array | Int32Array | BigInt64Array {
  if (!Array.isArray(data)) return data as Float32Array | Int32Array | BigInt64Array;
  return name === "target_tokens" ? tokens(data as number[]) : Float32Array.from(data as number[]);
}
