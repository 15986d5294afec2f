import { render } from 'preact';
import { App } from './app';
import { pollServer } from './state/connection';
import './style.css';

const root = document.getElementById('app');
if (root !== null) render(<App />, root);
void pollServer();
