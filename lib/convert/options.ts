// What a conversion is asked for, and what it answers.
import type { Addon, TypeName } from '../addon.js';

/** Types that weights can be written in. */
export const WRITABLE_TYPES = [
  'f32',
  'f16',
  'bf16',
  'q8_0',
  'q5_0',
  'q5_1',
  'q4_0',
  'q4_1',
  'q4_k',
  'q5_k',
  'q6_k',
] as const;
export type WritableType = (typeof WRITABLE_TYPES)[number];

export const SINGLE_PARTS = ['vision', 'llm', 'projection'] as const;
export type SinglePart = (typeof SINGLE_PARTS)[number];

/** Orders that matrices can lie in beside GGUF's own. */
export const LAYOUTS = ['cpu'] as const;
export type Layout = (typeof LAYOUTS)[number];

export interface ConvertOptions {
  /** A model file that is taken as it is, to be stored in another `layout`; goes with `name` alone. */
  model?: string;
  /** `eva_vit_g.pth`, or weights in the naming of `Salesforce/blip2-*` (file or folder). */
  vit?: string;
  /** `blip2_pretrained_flant5xxl.pth`, or the same in Hugging Face's naming. Left out: the variant without a Q-Former. */
  qformer?: string;
  /** `pretrained_minigpt4*.pth`. */
  projection?: string;
  /** A Hugging Face folder, or a llama GGUF file, whose tensors are copied as they are. */
  llm?: string;
  /** The LLaMA folder that the Vicuna delta in `llm` is added to. */
  deltaBase?: string;
  /** JSON with what no tensor's shape tells. */
  config?: string;
  out: string;
  /** 'cpu': the matrices lie as the CPU computes with them and loading only maps the file. Left out: as GGUF has them, for everybody. */
  layout?: Layout;
  /** Write one part instead of a bundle. */
  only?: SinglePart;
  /** One of WRITABLE_TYPES. Default: f16. */
  type?: TypeName;
  /** The type of one part's matrices in place of what `type` gives it. */
  vitType?: TypeName;
  qformerType?: TypeName;
  llmType?: TypeName;
  /** One of templateNames; default: `vicuna0` with a Q-Former, `llama2` without. */
  template?: string;
  /** `general.name`; default: the name of `out` without its ending. */
  name?: string;
  signal?: AbortSignal;
  onProgress?: (progress: ConvertProgress) => void;
}

export interface ConvertProgress {
  /** 'hash' reads the sources once for their checksums, 'write' reads them again and writes the model. */
  stage: 'hash' | 'write';
  /** Bytes read ('hash') or numbers written ('write'). */
  done: number;
  total: number;
  /** The file or tensor at hand. */
  what: string;
}

export interface ConvertResult {
  path: string;
  bytes: number;
  architecture: string;
  tensors: number;
  parameters: number;
  /** How many tensors and bytes each type has. */
  types: { type: TypeName; tensors: number; bytes: number }[];
  /** As in the key `minigpt4.sources`. */
  sources: string[];
  /** Things that work but are probably not meant. */
  warnings: string[];
}

/** What a conversion needs of the native code. */
export type ConvertNative = Pick<Addon, 'createGgufWriter' | 'addHalf' | 'encodeRows' | 'readSentencePiece'>;
