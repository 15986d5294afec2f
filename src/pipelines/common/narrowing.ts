import { InferenceError } from '../../errors.js';
import type { Weights } from '../../graph/weights.js';
import { formatShape } from '../../std/format-shape.js';
import { readChunks } from '../../weights/read-chunks.js';
import type { WeightRecord } from '../../weights/weight-files.js';

/** Bytes of a file that are read at a time. */
const CHUNK_BYTES = 4 * 2 ** 20;
/** Bits of the smallest magnitudes that float16 rounds to infinity: 65520 as float32, 65536 as bfloat16. */
const FIRST_INFINITE = { F32: 0x477ff000, BF16: 0x4780 } as const;
/** Bits of infinity in the stored type; those of numbers that are none lie above. */
const INFINITE = { F32: 0x7f800000, BF16: 0x7f80 } as const;

/** Weights that do not fit the type that a network was to compute in. */
export class UnfitWeightsError extends InferenceError {
  /** True where no type has their values: infinities, and what is no number. */
  readonly isDamaged: boolean;

  constructor(message: string, isDamaged: boolean) {
    super('CHECKPOINT_INVALID', message);
    this.isDamaged = isDamaged;
  }
}

/**
 * Reads the weights that a graph casts to float16 from a wider type.
 * @throws UnfitWeightsError that names the first tensor that does not fit
 */
export async function assertFitsFloat16({ narrowed }: Weights): Promise<void> {
  for (const [name, record] of narrowed) {
    for await (const bytes of readChunks(record, CHUNK_BYTES)) {
      if (!hasTooLarge(record, bytes, FIRST_INFINITE)) continue;
      const isDamaged = hasTooLarge(record, bytes, INFINITE);
      const what = isDamaged ? 'that are not finite' : "beyond float16's 65504";
      throw new UnfitWeightsError(`${name} ${formatShape(record.shape)} has values ${what}`, isDamaged);
    }
  }
}

/** @param bounds bits of the smallest magnitudes that are too large, by stored type */
function hasTooLarge(
  { dtype }: WeightRecord,
  bytes: Uint8Array<ArrayBuffer>,
  bounds: { readonly F32: number; readonly BF16: number },
): boolean {
  const isWide = dtype === 'F32';
  const values = isWide ? new Uint32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
  const [magnitude, first] = isWide ? [0x7fffffff, bounds.F32] : [0x7fff, bounds.BF16];
  for (let i = 0; i < values.length; i += 1) if (((values[i] ?? 0) & magnitude) >= first) return true;
  return false;
}
