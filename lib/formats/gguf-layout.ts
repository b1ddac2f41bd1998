// Model files whose matrices lie in the CPU's layout: what their tensors of bytes stand for. `native/core/gguf_layout.cpp` is the other reader.
import type { GgufKey } from '../addon.js';
import { MiniGptError } from '../errors.js';
import type { GgufTensorPlace } from './gguf.js';

/** Prefix of the keys that say what tensors of bytes stand for (docs/format.md). */
const LAYOUT_KEYS = 'minigpt4.layout';
/** The one version of the one layout that is known: `native/core/gguf_layout.cpp`. */
const LAYOUT = { name: 'cpu', version: 2 };

/** The type that such tensors have in the file. */
const BYTES_TYPE = 'i8';

/** The tensors, those in the CPU's layout with the types and shapes that the keys tell of; `typeOf` names GGUF's types. Errors: ERR_UNSUPPORTED, ERR_FILE_FORMAT. */
export function withLayout(
  path: string,
  keys: readonly GgufKey[],
  tensors: GgufTensorPlace[],
  typeOf: (number: number) => string | undefined,
): GgufTensorPlace[] {
  const key = (name: string): GgufKey['value'] | undefined =>
    keys.find((entry) => entry.key === `${LAYOUT_KEYS}${name}`)?.value;
  const layout = key('');
  if (layout === undefined) return tensors;
  const version = key('.version');
  if (layout !== LAYOUT.name || version !== LAYOUT.version) {
    throw new MiniGptError(
      'ERR_UNSUPPORTED',
      `${path} holds its matrices in the layout '${String(layout)}', version ${String(version)}; expected '${LAYOUT.name}', version ${LAYOUT.version}: ` +
        'convert the model again from what it was made from',
    );
  }
  const [names, types, shapes] = [key('.tensors'), key('.types'), key('.shapes')];
  if (!Array.isArray(names) || !Array.isArray(types) || !Array.isArray(shapes))
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${path}: expected the arrays ${LAYOUT_KEYS}.tensors, .types and .shapes`,
    );
  if (types.length !== names.length || shapes.length !== 2 * names.length) {
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${path}: ${LAYOUT_KEYS} tells of ${names.length} tensors, ${types.length} types and ${shapes.length} sizes; expected as many types and twice as many sizes`,
    );
  }
  const told = new Map(names.map((name, i) => [String(name), i]));
  const grouped = tensors.map((tensor): GgufTensorPlace => {
    const index = told.get(tensor.name);
    if (index === undefined) return tensor;
    told.delete(tensor.name);
    const type = typeOf(Number(types[index]));
    const [cols, rows] = [Number(shapes[2 * index]), Number(shapes[2 * index + 1])];
    if (tensor.type !== BYTES_TYPE || !type || !(cols > 0) || !(rows > 0)) {
      throw new MiniGptError(
        'ERR_FILE_FORMAT',
        `${path}: the tensor ${tensor.name} of type ${tensor.type} stands for ${rows} rows of ${cols} values of type ${String(types[index])}, which cannot be`,
      );
    }
    return { ...tensor, type, shape: [rows, cols], grouped: true };
  });
  const missing = [...told.keys()][0];
  if (missing !== undefined)
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${path}: ${LAYOUT_KEYS}.tensors names ${missing}, which is not there once`,
    );
  return grouped;
}
