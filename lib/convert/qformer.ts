// Plans the Q-Former's tensors and keys, from the original's naming (blip2_pretrained_flant5xxl.pth) or that of Salesforce/blip2-*.
import type { GgufKey, TypeName } from '../addon.js';
import { MiniGptError } from '../errors.js';
import type { LazyTensor } from '../formats/tensor.js';
import { PUBLISHED, agree, headCount, type SizeConfig } from './config.js';
import { f32, u32 } from './keys.js';
import { planned, type PlannedTensor } from './rows.js';
import { storedType } from './types.js';
import type { Weights } from './weights.js';

interface Naming {
  norm: string;
  layers: string;
  /** Between the attention's name and `query`. */
  inner: string;
}

const NAMINGS: readonly Naming[] = [
  { norm: 'Qformer.bert.embeddings.LayerNorm', layers: 'Qformer.bert.encoder.layer.', inner: 'self' },
  { norm: 'qformer.layernorm', layers: 'qformer.encoder.layer.', inner: 'attention' },
];

export interface QformerPlan {
  width: number;
  queries: number;
  keys: GgufKey[];
  tensors: PlannedTensor[];
}

/** `vitWidth`: of the ViT whose patches it looks at. Errors: ERR_MISSING_TENSOR, ERR_SHAPE, ERR_ARGUMENT (an unknown head count). */
export function planQformer(
  weights: Weights,
  config: SizeConfig['qformer'],
  vitWidth: number,
  type: TypeName,
): QformerPlan {
  const naming = NAMINGS.find((candidate) => weights.find(`${candidate.norm}.weight`)) ?? NAMINGS[0]!;
  const { path } = weights;
  const [, queries, width] = weights.measure('query_tokens', 3) as [number, number, number];
  const depth = weights.countLayers(naming.layers, '.intermediate_query.dense.weight');
  const hidden = weights.measure(`${naming.layers}0.intermediate_query.dense.weight`, 2)[0]!;
  const every = crossEvery(weights, naming, depth);
  agree('qformer.width', config?.width, width, path);
  agree('qformer.queries', config?.queries, queries, path);
  agree('qformer.depth', config?.depth, depth, path);
  agree('qformer.mlp', config?.mlp, hidden, path);
  agree('qformer.cross_every', config?.cross_every, every, path);
  const heads = headCount('Q-Former', 'qformer', config?.heads, width, PUBLISHED.qformer);

  const tensors: PlannedTensor[] = [];
  const add = (name: string, shape: number[], tensor: LazyTensor, stored = storedType(type, shape)): void => {
    tensors.push(planned(name, shape, stored, [{ role: weights.role, file: tensor.file }], tensor));
  };
  const both = (name: string, source: string, shape: number[], why = ''): void => {
    add(`${name}.weight`, shape, weights.take(`${source}.weight`, shape, why));
    add(`${name}.bias`, [shape[0]!], weights.take(`${source}.bias`, [shape[0]!]));
  };
  add('qf.query_tokens', [queries, width], weights.take('query_tokens', [queries, width]), 'f32');
  both('qf.embd_norm', naming.norm, [width]);
  for (let i = 0; i < depth; i++) {
    const from = `${naming.layers}${i}.`;
    const to = `qf.blk.${i}.`;
    both(`${to}attn_q`, `${from}attention.${naming.inner}.query`, [width, width]);
    both(`${to}attn_k`, `${from}attention.${naming.inner}.key`, [width, width]);
    both(`${to}attn_v`, `${from}attention.${naming.inner}.value`, [width, width]);
    both(`${to}attn_out`, `${from}attention.output.dense`, [width, width]);
    both(`${to}attn_norm`, `${from}attention.output.LayerNorm`, [width]);
    if (i % every === 0) {
      const why = `the ViT has the width ${vitWidth}`;
      both(`${to}cross_q`, `${from}crossattention.${naming.inner}.query`, [width, width]);
      both(`${to}cross_k`, `${from}crossattention.${naming.inner}.key`, [width, vitWidth], why);
      both(`${to}cross_v`, `${from}crossattention.${naming.inner}.value`, [width, vitWidth], why);
      both(`${to}cross_out`, `${from}crossattention.output.dense`, [width, width]);
      both(`${to}cross_norm`, `${from}crossattention.output.LayerNorm`, [width]);
    }
    both(`${to}ffn_up`, `${from}intermediate_query.dense`, [hidden, width]);
    both(`${to}ffn_down`, `${from}output_query.dense`, [width, hidden]);
    both(`${to}ffn_norm`, `${from}output_query.LayerNorm`, [width]);
  }
  const keys = [
    u32('minigpt4.qformer.embedding_length', width),
    u32('minigpt4.qformer.head_count', heads),
    u32('minigpt4.qformer.block_count', depth),
    u32('minigpt4.qformer.feed_forward_length', hidden),
    u32('minigpt4.qformer.query_count', queries),
    u32('minigpt4.qformer.cross_attention_every', every),
    f32('minigpt4.qformer.layer_norm_epsilon', config?.eps ?? 1e-12),
  ];
  return { width, queries, keys, tensors };
}

/** Which layers look at the picture: those whose index is a multiple of this. */
function crossEvery(weights: Weights, naming: Naming, depth: number): number {
  const looks = (i: number): boolean =>
    weights.find(`${naming.layers}${i}.crossattention.${naming.inner}.query.weight`) !== undefined;
  let every = 1;
  while (every < depth && !looks(every)) every++;
  for (let i = 0; i < depth; i++) {
    if (looks(i) !== (i % every === 0)) {
      throw new MiniGptError(
        'ERR_MISSING_TENSOR',
        `${weights.path}: layer ${i} of the Q-Former ${looks(i) ? 'has' : 'lacks'} a cross-attention; expected one in every layer whose index is a multiple of ${every}`,
      );
    }
  }
  return every;
}
