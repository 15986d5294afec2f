import { readPth } from './pth/pth.js';
import { readSafetensors, type SafetensorsFile } from './safetensors.js';

/**
 * Reads the list of tensors of a file, no tensor: of torch.save where its ending says so, else of safetensors. torch.save leaves no metadata.
 * @throws InferenceError of the reader
 */
export async function readTensorList(path: string): Promise<SafetensorsFile> {
  if (/\.(pth|pt|ckpt|bin)$/i.test(path)) return { ...(await readPth(path)), metadata: {} };
  return readSafetensors(path);
}
