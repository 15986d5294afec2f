import { contractJobTypes as jobTypes } from '../../src/job-types.js';
import type { Seeded } from '../support/seeded.js';

export interface StormJob {
  /** undefined: the job cannot be called back. */
  readonly id: string | undefined;
  readonly type: string;
  readonly user: string;
  /** Jobs of one recipe make the same image. */
  readonly recipe: string;
  readonly list: string;
  readonly raw: string;
  readonly isTwice: boolean;
  /** The end that is expected. */
  readonly wanted: 'completed' | 'failed' | 'rejected';
}

/** Small jobs of all types, of a few users, some of them pushed twice or on the wrong list, some malformed. */
export function stormJobs(count: number, random: Seeded): readonly StormJob[] {
  const types = [...jobTypes.keys()];
  return Array.from({ length: count }, (_, i) => {
    const type = types[i % types.length] ?? '';
    const isWan = jobTypes.get(type)?.family === 'wan';
    const id = `storm-${i}`;
    const user = random.pick(['ann', 'bob', 'cid']);
    const seed = 1 + random.below(3);
    const pictures = isWan ? 1 : random.pick([1, 3]);
    // Long enough that a job is in flight at most moments.
    const size = isWan ? { width: 96, height: 64, steps: 20 } : { width: 192, height: 192, steps: 12 };
    const config = { seed, ...size, num_images: pictures, frame_num: 5 };
    const payload = { id, type, prompt: 'a red circle', user_id: user, config };
    const isMisplaced = random.chance(0.1);
    const job = {
      id,
      type,
      user,
      recipe: `${type} ${seed} ${pictures}`,
      list: isWan !== isMisplaced ? 'wan_queue' : 'sdxl_queue',
      isTwice: random.chance(0.1),
    };
    const dice = random.next();
    if (dice < 0.03) return { ...job, id: undefined, isTwice: false, raw: `{"id": "${id}"`, wanted: 'rejected' };
    if (dice < 0.06) return { ...job, raw: JSON.stringify({ ...payload, type: 'unknown' }), wanted: 'failed' };
    if (dice < 0.09) {
      return { ...job, raw: JSON.stringify({ ...payload, config: { ...config, width: 65 } }), wanted: 'failed' };
    }
    return { ...job, raw: JSON.stringify(payload), wanted: 'completed' };
  });
}
