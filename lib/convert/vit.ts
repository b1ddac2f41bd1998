// Plans the ViT's tensors and keys, from the original's naming (eva_vit_g.pth) or that of Salesforce/blip2-*.
import type { GgufKey, TypeName } from '../addon.js';
import { MiniGptError } from '../errors.js';
import type { LazyTensor } from '../formats/tensor.js';
import { PUBLISHED, agree, headCount, type SizeConfig } from './config.js';
import { f32, f32s, u32 } from './keys.js';
import { planned, qkvBias, vector, type PlannedTensor } from './rows.js';
import { storedType } from './types.js';
import type { Weights } from './weights.js';

const CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD = [0.26862954, 0.26130258, 0.27577711];

/** Where each tensor stands. `qkvBias` undefined: the bias is split into q_bias and v_bias. */
interface Naming {
  classToken: string;
  positions: string;
  patch: string;
  blocks: string;
  block: { ln1: string; qkv: string; out: string; ln2: string; up: string; down: string };
  qkvBias?: string;
}

const evaNaming = (prefix: string): Naming => ({
  classToken: `${prefix}cls_token`,
  positions: `${prefix}pos_embed`,
  patch: `${prefix}patch_embed.proj`,
  blocks: `${prefix}blocks.`,
  block: { ln1: 'norm1', qkv: 'attn.qkv', out: 'attn.proj', ln2: 'norm2', up: 'mlp.fc1', down: 'mlp.fc2' },
});

const NAMINGS: readonly Naming[] = [
  evaNaming(''),
  evaNaming('visual_encoder.'),
  {
    classToken: 'vision_model.embeddings.class_embedding',
    positions: 'vision_model.embeddings.position_embedding',
    patch: 'vision_model.embeddings.patch_embedding',
    blocks: 'vision_model.encoder.layers.',
    block: {
      ln1: 'layer_norm1',
      qkv: 'self_attn.qkv',
      out: 'self_attn.projection',
      ln2: 'layer_norm2',
      up: 'mlp.fc1',
      down: 'mlp.fc2',
    },
    qkvBias: 'self_attn.qkv.bias',
  },
];

export interface VitPlan {
  width: number;
  /** Patches without the class token. */
  patches: number;
  keys: GgufKey[];
  tensors: PlannedTensor[];
}

/** Errors: ERR_MISSING_TENSOR, ERR_SHAPE, ERR_ARGUMENT (a size that only --config can tell). */
export function planVit(weights: Weights, config: SizeConfig['vit'], type: TypeName): VitPlan {
  const naming = NAMINGS.find((candidate) => weights.find(`${candidate.patch}.weight`)) ?? NAMINGS[0]!;
  const { path } = weights;
  const [width, channels, patch, patchAcross] = weights.measure(`${naming.patch}.weight`, 4) as [
    number,
    number,
    number,
    number,
  ];
  if (channels !== 3 || patch !== patchAcross) {
    throw new MiniGptError(
      'ERR_SHAPE',
      `${path}: patches are ${channels} x ${patch} x ${patchAcross}; expected 3 colours and a square`,
    );
  }
  const rows = weights.measure(naming.positions, 3)[1]!;
  const side = Math.round(Math.sqrt(rows - 1));
  if (side * side !== rows - 1)
    throw new MiniGptError('ERR_SHAPE', `${path}: ${rows} positions are no class token and a square of patches`);
  const hidden = weights.measure(`${naming.blocks}0.${naming.block.up}.weight`, 2)[0]!;
  const held = weights.countLayers(naming.blocks, `.${naming.block.ln1}.weight`);
  agree('vit.width', config?.width, width, path);
  agree('vit.patch_size', config?.patch_size, patch, path);
  agree('vit.image_size', config?.image_size, side * patch, path);
  agree('vit.mlp', config?.mlp, hidden, path);
  const heads = headCount('ViT', 'vit', config?.heads, width, PUBLISHED.vit);
  const depth = usedBlocks(config?.depth, width, held, path);

  const tensors: PlannedTensor[] = [];
  const add = (name: string, shape: number[], tensor: LazyTensor, stored = storedType(type, shape)): void => {
    tensors.push(planned(name, shape, stored, [{ role: weights.role, file: tensor.file }], tensor));
  };
  const both = (name: string, source: string, shape: number[]): void => {
    add(`${name}.weight`, shape, weights.take(`${source}.weight`, shape));
    add(`${name}.bias`, [shape[0]!], weights.take(`${source}.bias`, [shape[0]!]));
  };
  add('v.class_embd', [width], weights.take(naming.classToken, [width]));
  add('v.position_embd.weight', [rows, width], weights.take(naming.positions, [rows, width]), 'f32');
  add(
    'v.patch_embd.weight',
    [width, 3 * patch * patch],
    weights.take(`${naming.patch}.weight`, [width, 3, patch, patch]),
  );
  add('v.patch_embd.bias', [width], weights.take(`${naming.patch}.bias`, [width]));
  for (let i = 0; i < depth; i++) {
    const from = `${naming.blocks}${i}.`;
    const to = `v.blk.${i}.`;
    both(`${to}ln1`, from + naming.block.ln1, [width]);
    add(
      `${to}attn_qkv.weight`,
      [3 * width, width],
      weights.take(`${from}${naming.block.qkv}.weight`, [3 * width, width]),
    );
    add(
      `${to}attn_qkv.bias`,
      [3 * width],
      naming.qkvBias
        ? weights.take(from + naming.qkvBias, [3 * width])
        : qkvBias(weights.take(`${from}attn.q_bias`, [width]), weights.take(`${from}attn.v_bias`, [width])),
    );
    both(`${to}attn_out`, from + naming.block.out, [width, width]);
    both(`${to}ln2`, from + naming.block.ln2, [width]);
    both(`${to}ffn_up`, from + naming.block.up, [hidden, width]);
    both(`${to}ffn_down`, from + naming.block.down, [width, hidden]);
  }
  const keys = [
    u32('minigpt4.vit.image_size', side * patch),
    u32('minigpt4.vit.patch_size', patch),
    u32('minigpt4.vit.embedding_length', width),
    u32('minigpt4.vit.head_count', heads),
    u32('minigpt4.vit.block_count', depth),
    u32('minigpt4.vit.feed_forward_length', hidden),
    f32('minigpt4.vit.layer_norm_epsilon', config?.eps ?? 1e-6),
    f32('minigpt4.vit.post_norm_epsilon', config?.ln_vision_eps ?? 1e-5),
    f32s('minigpt4.image.mean', CLIP_MEAN),
    f32s('minigpt4.image.std', CLIP_STD),
  ];
  return { width, patches: rows - 1, keys, tensors };
}

/** How many of the blocks that a file holds are used: the published files hold one more. */
function usedBlocks(stated: number | undefined, width: number, held: number, path: string): number {
  const depth = stated ?? (width === PUBLISHED.vit.width ? PUBLISHED.vit.depth : undefined);
  if (depth === undefined) {
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `${path} holds ${held} blocks of width ${width}, which is not a published size: files hold more blocks than are used; ` +
        'give the number with --config, as vit.depth',
    );
  }
  if (held < depth)
    throw new MiniGptError('ERR_MISSING_TENSOR', `${path} holds ${held} ViT blocks, expected at least ${depth}`);
  return depth;
}

/** Names of ln_vision, the norm after the ViT, in the original's and in Hugging Face's naming. */
const POST_NORMS = ['ln_vision', 'vision_model.post_layernorm'];

/**
 * The norm after the ViT from the first of `holders` that has it. Without a Q-Former the original never loads the file that holds it:
 * the norm stays as it is born, 1 and 0, unless the trained checkpoint has one.
 */
export function planPostNorm(holders: readonly Weights[], width: number, withQformer: boolean): PlannedTensor[] {
  for (const weights of holders) {
    const name = POST_NORMS.find((candidate) => weights.find(`${candidate}.weight`));
    if (!name) continue;
    return ['weight', 'bias'].map((part) => {
      const tensor = weights.take(`${name}.${part}`, [width], `the ViT has the width ${width}`);
      return planned(`v.post_ln.${part}`, [width], 'f32', [{ role: weights.role, file: tensor.file }], tensor);
    });
  }
  if (withQformer) {
    throw new MiniGptError(
      'ERR_MISSING_TENSOR',
      `${holders.map(({ path }) => path).join(', ')}: none holds ln_vision.weight of shape [${width}]`,
    );
  }
  return [
    planned('v.post_ln.weight', [width], 'f32', [], vector('v.post_ln.weight', new Float32Array(width).fill(1))),
    planned('v.post_ln.bias', [width], 'f32', [], vector('v.post_ln.bias', new Float32Array(width))),
  ];
}
