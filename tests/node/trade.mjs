// The official TypeScript client, unmodified, trades on the exchange named by its environment and prints what it got.
import { readFileSync } from 'node:fs';
import { Configuration, ExchangeApi, MarketApi, OrdersApi, PortfolioApi } from 'kalshi-typescript';

const { HOLDFAST_REST, HOLDFAST_KEY_ID, HOLDFAST_PEM, HOLDFAST_TICKER } = process.env;
const configuration = new Configuration({
  apiKey: HOLDFAST_KEY_ID,
  privateKeyPem: readFileSync(HOLDFAST_PEM, 'utf8'),
  basePath: HOLDFAST_REST,
});
const exchange = new ExchangeApi(configuration);
const markets = new MarketApi(configuration);
const orders = new OrdersApi(configuration);
const portfolio = new PortfolioApi(configuration);
const got = {};

got.status = (await exchange.getExchangeStatus()).data;
got.balance = (await portfolio.getBalance()).data;
got.markets = (await markets.getMarkets(2)).data;
got.market = (await markets.getMarket(HOLDFAST_TICKER)).data;
got.orderbook = (await markets.getMarketOrderbook(HOLDFAST_TICKER, 5)).data;

const order = {
  ticker: HOLDFAST_TICKER,
  client_order_id: 'from-typescript',
  side: 'bid',
  count: '10.00',
  price: '0.3000',
  time_in_force: 'good_till_canceled',
  self_trade_prevention_type: 'taker_at_cross',
};
const created = await orders.createOrderV2(order);
got.created = { status: created.status, ...created.data };
got.order = (await orders.getOrder(created.data.order_id)).data;
got.listed = (await orders.getOrders(undefined, undefined, undefined, undefined, 'resting')).data;
got.canceled = (await orders.cancelOrderV2(created.data.order_id)).data;
got.taken = (await orders.createOrderV2({ ...order, client_order_id: 'taker', price: '0.4500' })).data;
got.fills = (await portfolio.getFills()).data;
got.positions = (await portfolio.getPositions()).data;
try {
  await orders.amendOrderV2(created.data.order_id, { ticker: HOLDFAST_TICKER, side: 'bid', price: '0.3100', count: '10.00' });
} catch (error) {
  got.amend = { status: error.response?.status, body: error.response?.data };
}
console.log(JSON.stringify(got));
