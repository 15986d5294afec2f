export { contractJobTypes as jobTypes } from '../../job-types.js';
