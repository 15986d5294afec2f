/** Largest value of int8 that has a negative. */
const LARGEST = 127;

/** A matrix in 8 bits: `rows[i][j]` is about `scales[i]` times the number that is stored. */
export interface QuantisedMatrix {
  /** [columns, rows]: transposed, as integer kernels take it. */
  readonly transposed: Int8Array<ArrayBuffer>;
  /** One for each row. */
  readonly scales: Float32Array<ArrayBuffer>;
}

/**
 * Rounds each row of a matrix to 255 steps from its largest magnitude down to the negative of that. A row of zeros has the scale 1, one with a
 * number that is not finite a scale that is not either.
 * @param matrix [rows, columns]
 */
export function quantiseRows(matrix: Float32Array, rows: number): QuantisedMatrix {
  const columns = matrix.length / rows;
  const transposed = new Int8Array(matrix.length);
  const scales = new Float32Array(rows);
  for (let i = 0; i < rows; i += 1) {
    let largest = 0;
    for (let j = 0; j < columns; j += 1) largest = Math.max(largest, Math.abs(matrix[i * columns + j] ?? 0));
    const scale = largest === 0 ? 1 : Math.fround(largest / LARGEST);
    scales[i] = scale;
    for (let j = 0; j < columns; j += 1) {
      // A scale that was rounded down gives 127.00001 at most.
      transposed[j * rows + i] = Math.min(LARGEST, Math.round((matrix[i * columns + j] ?? 0) / scale));
    }
  }
  return { transposed, scales };
}
