// Plans the language model: from a Hugging Face folder (with a Vicuna delta or without), or from a GGUF file as it is.
import { basename, join } from 'node:path';
import { z } from 'zod';
import type { GgufKey, TypeName } from '../addon.js';
import { MiniGptError } from '../errors.js';
import type { GgufFile } from '../formats/gguf.js';
import { readJson } from '../formats/hugging-face.js';
import type { LazyTensor } from '../formats/tensor.js';
import { addDelta } from '../formats/vicuna-delta.js';
import { f32, text, u32 } from './keys.js';
import type { ConvertNative } from './options.js';
import { planned, rotaryPairs, type PlannedTensor } from './rows.js';
import { BLOCKS, outputType, storedType } from './types.js';
import type { Weights } from './weights.js';

const size = z
  .number()
  .int()
  .positive()
  .max(1 << 24);
const scaling = z
  .object({ type: z.string(), rope_type: z.string(), factor: z.number().positive(), rope_theta: z.number().positive() })
  .partial();

/** A folder's config.json. */
const rules = z.object({
  model_type: z.string().default('llama'),
  hidden_size: size,
  num_attention_heads: size,
  num_hidden_layers: size.max(1024),
  intermediate_size: size,
  vocab_size: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_theta: z.number().positive().default(10000),
  rope_scaling: scaling.nullish(),
  rope_parameters: scaling.nullish(),
  max_position_embeddings: size.default(2048),
  tie_word_embeddings: z.boolean().default(false),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  hidden_act: z.string().default('silu'),
});

export interface LlmPlan {
  width: number;
  /** Rows of the embedding. */
  vocabulary: number;
  keys: GgufKey[];
  tensors: PlannedTensor[];
  warnings: string[];
}

/**
 * Plans a Hugging Face folder's model; `base` is what the folder's weights are the difference to.
 * Errors: ERR_MISSING_TENSOR, ERR_SHAPE, ERR_FILE_FORMAT, ERR_UNSUPPORTED (no llama, biases, other rotary scalings).
 */
export async function planLlama(
  weights: Weights,
  base: Weights | undefined,
  type: TypeName,
  native: ConvertNative,
): Promise<LlmPlan> {
  const config = await readConfig(join(weights.path, 'config.json'));
  const warnings: string[] = [];
  const width = config.hidden_size;
  const heads = config.num_attention_heads;
  const kvHeads = config.num_key_value_heads ?? heads;
  const head = config.head_dim ?? width / heads;
  if (!Number.isInteger(head) || head % 2 || heads % kvHeads) {
    throw new MiniGptError(
      'ERR_SHAPE',
      `${weights.path}/config.json: width ${width}, ${heads} heads and ${kvHeads} key and value heads do not go together`,
    );
  }
  const hidden = config.intermediate_size;
  // The embedding tells, not the configuration: a v0 delta has 32001 rows.
  const vocabulary = weights.measure('model.embed_tokens.weight', 2)[0]!;

  const take = (name: string, shape: number[]): LazyTensor => {
    const tensor = weights.take(name, shape, 'by config.json');
    if (!base) return tensor;
    const inBase = base.find(name);
    if (!inBase)
      throw new MiniGptError(
        'ERR_MISSING_TENSOR',
        `${base.path} lacks the tensor ${name}, which the delta ${weights.path} changes`,
      );
    return addDelta(inBase, tensor, native);
  };
  const tensors: PlannedTensor[] = [];
  const add = (name: string, shape: number[], tensor: LazyTensor, wanted = type): void => {
    const sources = [{ role: weights.role, file: tensor.file }];
    if (base) sources.push({ role: base.role, file: base.find(tensor.name)!.file });
    tensors.push(planned(name, shape, storedType(wanted, shape), sources, tensor));
  };
  const tied = config.tie_word_embeddings && !weights.find('lm_head.weight');
  const embedding = [vocabulary, width];
  add('token_embd.weight', embedding, take('model.embed_tokens.weight', embedding), tied ? outputType(type) : type);
  for (let i = 0; i < config.num_hidden_layers; i++) {
    const from = `model.layers.${i}.`;
    const to = `blk.${i}.`;
    const q = [heads * head, width];
    const kv = [kvHeads * head, width];
    add(`${to}attn_norm.weight`, [width], take(`${from}input_layernorm.weight`, [width]));
    add(`${to}attn_q.weight`, q, rotaryPairs(take(`${from}self_attn.q_proj.weight`, q), heads));
    add(`${to}attn_k.weight`, kv, rotaryPairs(take(`${from}self_attn.k_proj.weight`, kv), kvHeads));
    add(`${to}attn_v.weight`, kv, take(`${from}self_attn.v_proj.weight`, kv));
    add(
      `${to}attn_output.weight`,
      [width, heads * head],
      take(`${from}self_attn.o_proj.weight`, [width, heads * head]),
    );
    add(`${to}ffn_norm.weight`, [width], take(`${from}post_attention_layernorm.weight`, [width]));
    add(`${to}ffn_gate.weight`, [hidden, width], take(`${from}mlp.gate_proj.weight`, [hidden, width]));
    add(`${to}ffn_up.weight`, [hidden, width], take(`${from}mlp.up_proj.weight`, [hidden, width]));
    add(`${to}ffn_down.weight`, [width, hidden], take(`${from}mlp.down_proj.weight`, [width, hidden]));
  }
  add('output_norm.weight', [width], take('model.norm.weight', [width]));
  if (!tied) add('output.weight', embedding, take('lm_head.weight', embedding), outputType(type));

  if (base && vocabulary === base.measure('model.embed_tokens.weight', 2)[0]) {
    warnings.push(
      `the delta ${weights.path} has as many rows as its base (${vocabulary}): Vicuna from version 1.1 on; MiniGPT-4 was trained on v0, which has one more`,
    );
  }
  if (!base && /delta/i.test(basename(weights.path))) {
    warnings.push(
      `${weights.path} looks like a delta by its name; a delta alone answers nonsense (--delta-base gives the LLaMA folder it belongs to)`,
    );
  }
  const keys = [
    u32('llama.context_length', config.max_position_embeddings),
    u32('llama.embedding_length', width),
    u32('llama.block_count', config.num_hidden_layers),
    u32('llama.feed_forward_length', hidden),
    u32('llama.attention.head_count', heads),
    u32('llama.attention.head_count_kv', kvHeads),
    ...(head * heads === width
      ? []
      : [u32('llama.attention.key_length', head), u32('llama.attention.value_length', head)]),
    f32('llama.attention.layer_norm_rms_epsilon', config.rms_norm_eps),
    u32('llama.rope.dimension_count', head),
    f32('llama.rope.freq_base', config.theta),
    ...(config.factor === undefined
      ? []
      : [text('llama.rope.scaling.type', 'linear'), f32('llama.rope.scaling.factor', config.factor)]),
    u32('llama.vocab_size', vocabulary),
  ];
  return { width, vocabulary, keys, tensors, warnings };
}

type Config = z.infer<typeof rules> & { theta: number; factor: number | undefined };

async function readConfig(path: string): Promise<Config> {
  const parsed = rules.safeParse(await readJson(path));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new MiniGptError('ERR_FILE_FORMAT', `${path}: ${issue.path.join('.') || 'the whole'}: ${issue.message}`);
  }
  const config = parsed.data;
  const refuse = (what: string): never => {
    throw new MiniGptError('ERR_UNSUPPORTED', `${path}: ${what}`);
  };
  if (config.model_type !== 'llama') refuse(`the model type is '${config.model_type}', expected 'llama'`);
  if (config.hidden_act !== 'silu') refuse(`the activation is '${config.hidden_act}', expected 'silu'`);
  if (config.attention_bias || config.mlp_bias) refuse('the model has biases, expected none');
  const rope = config.rope_scaling ?? config.rope_parameters;
  const kind = rope?.rope_type ?? rope?.type ?? 'default';
  if (kind !== 'default' && kind !== 'linear') refuse(`the rotary scaling is '${kind}', expected none or 'linear'`);
  const factor = kind === 'linear' ? rope?.factor : undefined;
  if (kind === 'linear' && factor === undefined)
    throw new MiniGptError('ERR_FILE_FORMAT', `${path}: linear rotary scaling without a factor`);
  return { ...config, theta: config.rope_parameters?.rope_theta ?? config.rope_theta, factor };
}

/** Keys of the file itself, which a conversion writes anew. */
const OWN_KEYS = /^(general\.(architecture|name|file_type|quantization_version|alignment)|minigpt4\.)/;

/** Plans a llama GGUF file: every tensor with its bytes, every key but the file's own. Errors: ERR_UNSUPPORTED, ERR_MISSING_TENSOR. */
export function planGguf(file: GgufFile, role: string): LlmPlan {
  const key = (name: string): GgufKey['value'] | undefined => file.keys.find((entry) => entry.key === name)?.value;
  const architecture = key('general.architecture');
  if (architecture !== 'llama') {
    throw new MiniGptError(
      'ERR_UNSUPPORTED',
      `${file.path} has the architecture '${String(architecture)}', expected 'llama'`,
    );
  }
  const width = key('llama.embedding_length');
  const embedding = file.tensors.find((tensor) => tensor.name === 'token_embd.weight');
  if (!embedding)
    throw new MiniGptError(
      'ERR_MISSING_TENSOR',
      `${file.path} lacks the tensor token_embd.weight; is it a vocabulary without a model?`,
    );
  if (typeof width !== 'number' || embedding.shape.at(-1) !== width) {
    throw new MiniGptError(
      'ERR_SHAPE',
      `${file.path}: llama.embedding_length is ${String(width)}, but token_embd.weight has rows of ${embedding.shape.at(-1)}`,
    );
  }
  return {
    width,
    vocabulary: embedding.shape[0]!,
    keys: file.keys.filter((entry) => !OWN_KEYS.test(entry.key)),
    tensors: planAsItIs(file, role),
    warnings: [],
  };
}

/** Plans every tensor of a GGUF file with the bytes that it has there. Errors: ERR_UNSUPPORTED. */
export function planAsItIs(file: GgufFile, role: string): PlannedTensor[] {
  return file.tensors.map((place): PlannedTensor => {
    if (!Object.hasOwn(BLOCKS, place.type)) {
      throw new MiniGptError(
        'ERR_UNSUPPORTED',
        `${file.path}: ${place.name} has the type ${place.type}; known are ${Object.keys(BLOCKS).join(', ')}`,
      );
    }
    if (place.grouped) {
      throw new MiniGptError(
        'ERR_UNSUPPORTED',
        `${file.path} is stored in the CPU's layout already, from which nothing can be made; give the file that it was made from`,
      );
    }
    const type = place.type as TypeName;
    return {
      name: place.name,
      shape: place.shape,
      type,
      sources: [{ role, file: place.part.path }],
      origin: `${place.part.path}: ${place.name}`,
      async *values() {
        const row =
          place.bytes /
          Math.max(
            1,
            place.shape.slice(0, -1).reduce((rows, count) => rows * count, 1),
          );
        const step = row * Math.max(1, Math.floor((8 << 20) / row));
        for (let at = 0; at < place.bytes; at += step) {
          yield { source: type, values: await place.part.read(place.position + at, Math.min(step, place.bytes - at)) };
        }
      },
    };
  });
}
